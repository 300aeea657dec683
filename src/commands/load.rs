//! `load`: the base model.

use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use serde_json::json;

use super::Verb;
use crate::device::memory;
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Task, units};
use crate::model::{self, LoadOptions, Opened, Spec, Tokenizer, source};
use crate::quant::{QuantSpec, QuantType};
use crate::session::{Answer, Base, Session};

/// Load a base model
///
/// SOURCE is `demo` (built in), a directory in Hugging Face layout (sharded or not, also one saved in 4 bits by
/// bitsandbytes), a .gguf file, or a hub id like HuggingFaceTB/SmolLM2-135M-Instruct. Loading what is loaded already does
/// nothing. HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are honoured.
#[derive(Parser)]
#[command(name = "load", verbatim_doc_comment)]
pub(super) struct Load {
    /// demo, a directory, a .gguf file, or a hub id
    source: String,
    /// Type of the weights in memory; auto keeps the checkpoint's
    #[arg(long, default_value = "auto", value_parser = ["auto", "f32", "bf16", "f16"])]
    dtype: String,
    /// Type of products and activations; auto is f32 for a checkpoint in f32, else bf16 where the processor is fast at it
    #[arg(long, default_value = "auto", value_parser = ["auto", "f32", "bf16"])]
    compute_dtype: String,
    /// Where to compute
    #[arg(long, default_value = "auto", value_parser = ["auto", "cpu"])]
    device: String,
    /// Branch, tag or commit of a hub model
    #[arg(long)]
    revision: Option<String>,
    /// Quantize tensor by tensor while loading, so that the 16-bit model never stands in memory whole
    #[arg(long, value_parser = ["nf4", "fp4", "int8"])]
    quantize: Option<String>,
    /// Load again what is loaded
    #[arg(long)]
    reload: bool,
    /// Drop what was trained and not saved
    #[arg(long)]
    force: bool,
}

impl Verb for Load {
    const EXCLUSIVE: bool = true;

    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let start = Instant::now();
        let named = |name: &str| if name == "auto" { Ok(None) } else { name.parse().map(Some) };
        let (dtype, compute) = (named(&self.dtype)?, named(&self.compute_dtype)?);
        let quantize = self.quantize.as_deref().map(|q| q.parse::<QuantType>().map(QuantSpec::of)).transpose()?;
        let options = LoadOptions { dtype, quantize, compute };
        if let Some(base) = &session.base
            && !self.reload
            && (&base.source, &base.revision) == (&self.source, &self.revision)
            && stands(base, options)
        {
            task.emit(Event::Text(format!("{} is loaded already; --reload starts over", base.opened.name)));
            return Ok(answer(base));
        }
        let mut opened = source::open(&self.source, self.revision.as_deref(), &task)?;
        let spec = Spec::from_config(&opened.config).map_err(|e| e.context(&opened.location))?;
        check_unsaved(session, self.force, task.sink.is_notebook(), task)?;
        let unused: Vec<String> = model::unused(&spec, &*opened.tensors).into_iter().map(str::to_owned).collect();
        let beside_buffers = || memory::allocated().saturating_sub(memory::all_held());
        let before = beside_buffers();
        let Opened { tokenizer: files, tensors, .. } = &mut opened;
        // The tokenizer keeps one core busy while the others read.
        let (decoder, tokenizer) = rayon::join(
            || model::load(spec.clone(), tensors.as_mut(), options, task),
            || {
                let (json, config) = (&files.tokenizer_json, &files.tokenizer_config);
                let tokenizer = Tokenizer::from_files(json, config, files.chat_template.clone());
                // Reading it took more memory than it keeps: the rest goes back before most weights are there.
                memory::trim();
                tokenizer
            },
        );
        let tokenizer = tokenizer?;
        tokenizer.check_vocab(spec.vocabulary)?;
        let tokenizer_bytes = beside_buffers().saturating_sub(before);
        let decoder = decoder.map_err(|error| {
            let error = error.context(&opened.location);
            if error.kind() == Kind::OutOfMemory {
                error.hint(what_fits(session, &opened, &spec, options))
            } else {
                error
            }
        })?;
        if !unused.is_empty() {
            task.emit(Event::Warning(left_over(&unused)));
        }
        let four_bit = decoder.linear(0).weight.spec();
        let base = Base {
            source: self.source,
            revision: self.revision,
            options,
            opened,
            decoder,
            tokenizer: Arc::new(tokenizer),
            quant: quantize.or(four_bit),
            importance: None,
            merged: Vec::new(),
            trained: false,
            unsaved: false,
        };
        session.adapters.clear();
        session.active.clear();
        session.held_out = None;
        session.tokenized_as.clear();
        session.conversation.clear();
        session.seen.clear();
        session.tokenizer_bytes = tokenizer_bytes;
        let base = session.base.insert(base);
        memory::trim();
        describe(base, start.elapsed().as_secs_f64(), task);
        Ok(answer(base))
    }
}

/// Whether the base is what a load with these options would make; what they leave open may be as it is.
fn stands(base: &Base, options: LoadOptions) -> bool {
    let same_type = options.dtype.is_none_or(|dtype| base.decoder.embedding.dtype() == Some(dtype));
    let same_kind = match options.quantize {
        Some(quantize) => base.quant.is_some_and(|quant| quant.kind == quantize.kind),
        None => options.dtype.is_none() || !base.is_quantized(),
    };
    same_type && same_kind && options.compute.is_none_or(|compute| base.decoder.compute == compute)
}

/// What to do about a model that is too large.
fn what_fits(session: &Session, opened: &Opened, spec: &Spec, options: LoadOptions) -> String {
    let left = memory::usable();
    let needed = |options| model::bytes(spec, &*opened.tensors, options);
    let nf4 = needed(LoadOptions { quantize: Some(QuantSpec::default()), ..options });
    let mut fits = Vec::new();
    if options.quantize.is_none() && nf4 <= left {
        fits.push(format!("--quantize nf4 takes {}", units::bytes(nf4)));
    }
    if let Some(base) = session.base.as_ref().filter(|base| needed(options) <= left + base.bytes()) {
        fits.push(format!("unload first: {} takes {}", base.opened.name, units::bytes(base.bytes())));
    }
    if fits.is_empty() {
        return format!("even --quantize nf4 takes {}: a smaller model, or more memory", units::bytes(nf4));
    }
    fits.join(", or ")
}

/// Says which tensors of a checkpoint nothing reads.
fn left_over(names: &[String]) -> String {
    let (count, shown) = (units::plural(names.len(), "tensor"), names[..names.len().min(3)].join(", "));
    let more = if names.len() > 3 { ", …" } else { "" };
    format!("the model has no place for {count} of the checkpoint: {shown}{more}")
}

/// Refuses to drop what was trained and not saved, unless the user is asked and says yes. With `is_kept_enough` the copy that a
/// run keeps of an adapter will do, with a warning.
pub(super) fn check_unsaved(session: &Session, force: bool, is_kept_enough: bool, task: Task<'_>) -> Result<()> {
    let unsaved_base = session.base.as_ref().filter(|base| base.unsaved);
    let error = match (unsaved_base, session.adapters.iter().find(|a| !a.saved)) {
        _ if force => return Ok(()),
        (Some(base), _) => Error::state(format!("{} was trained whole and is not saved", base.opened.name))
            .hint("merge --save DIR, or --force"),
        (None, Some(live)) => {
            let message = format!("adapter {} was trained and is not saved{}", live.name, session.copy_of(live));
            if live.run.is_some() && is_kept_enough {
                task.emit(Event::Warning(message));
                return Ok(());
            }
            Error::state(message).hint(format!("save-adapter {} DIR, or --force", live.name))
        }
        (None, None) => return Ok(()),
    };
    match task.sink.confirm(&format!("{}. Go on without it?", error.message())) {
        Some(true) => Ok(()),
        Some(false) | None => task.check().and(Err(error)),
    }
}

fn describe(base: &Base, seconds: f64, task: Task<'_>) {
    let spec = &base.decoder.spec;
    let heads = if spec.kv_heads == spec.heads {
        format!("{} heads", spec.heads)
    } else {
        format!("{} heads over {} of keys", spec.heads, spec.kv_heads)
    };
    task.emit(Event::Text(format!(
        "{}: {} parameters, {} in memory as {}, computed in {}, loaded in {}",
        base.opened.name,
        units::short(spec.parameters()),
        units::bytes(base.bytes()),
        base.type_name(),
        base.decoder.compute,
        units::seconds(seconds)
    )));
    task.emit(Event::Text(format!(
        "{}, {} layers of width {}, {heads}, vocabulary {}, context {}",
        spec.architecture,
        spec.layers,
        spec.hidden,
        units::count(spec.vocabulary as u64),
        units::count(spec.max_positions as u64)
    )));
    let next: &[&str] = if base.quant.is_some() { &["attach-lora"] } else { &["quantize nf4", "attach-lora"] };
    task.emit(Event::Next(next.iter().map(|s| (*s).to_owned()).collect()));
}

fn answer(base: &Base) -> serde_json::Value {
    json!({
        "model": base.opened.name,
        "architecture": base.decoder.spec.architecture,
        "parameters": base.decoder.spec.parameters(),
        "dtype": base.type_name(),
        "compute_dtype": base.decoder.compute.name(),
        "device": "cpu",
        "bytes": base.bytes(),
    })
}
