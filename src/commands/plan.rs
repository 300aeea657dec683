//! `plan`: what a training will take, before anything is loaded.

use std::path::Path;

use clap::Parser;
use serde_json::{Value, json};

use super::Verb;
use super::arguments::positive;
use crate::device::{Purpose, memory};
use crate::error::{Kind, Result};
use crate::event::{Cell, Event, MemoryPart, MemoryReport, Table, Task, units};
use crate::files::expand_home;
use crate::language;
use crate::lora::{LoraConfig, Targets};
use crate::model::{self, LoadOptions, Opened, Spec, hub::HubConfig, source};
use crate::quant::{DType, QuantSpec};
use crate::session::{Answer, Session};
use crate::train::{Footprint, Job, footprint};

/// Cards with their memory in GB, as they are sold.
const CARDS: &[(&str, u64)] =
    &[("T4", 16), ("L4", 24), ("RTX 3090, 4090", 24), ("A100 40 GB", 40), ("A100 80 GB", 80), ("H100", 80)];

/// What a CUDA context and its libraries are assumed to take of a card.
const CONTEXT: u64 = 500_000_000;

/// Say what a training would take in memory, and whether it fits
///
/// SOURCE is what load takes, or a shape that is known by name: llama-7b, llama-3-8b, mistral-7b. Only configuration and headers
/// are read; a hub id must be in the cache. All samples are taken to be as long as --max-seq-len.
#[derive(Parser)]
#[command(name = "plan", verbatim_doc_comment)]
pub(super) struct Plan {
    /// demo, a directory, a .gguf file, a hub id in the cache, or a known name
    source: String,
    /// What is trained over what
    #[arg(long, default_value = "lora", value_parser = ["full", "lora", "qlora"])]
    method: String,
    /// The same as --method full
    #[arg(long, conflicts_with = "method")]
    full: bool,
    /// Rank of the adapter
    #[arg(long, short, default_value = "16", value_parser = positive)]
    rank: usize,
    /// all-linear, attention, mlp, names like q_proj,v_proj, or a regular expression
    #[arg(long, default_value = "all-linear")]
    targets: String,
    /// Samples a batch
    #[arg(long, default_value = "4", value_parser = positive)]
    batch_size: usize,
    /// Batches an optimizer step; it takes no memory
    #[arg(long, default_value = "1", value_parser = positive)]
    grad_accum: usize,
    /// Tokens a sample
    #[arg(long, default_value = "512", value_parser = positive)]
    max_seq_len: usize,
    /// The optimizer
    #[arg(long, default_value = "adamw", value_parser = ["adamw"])]
    optimizer: String,
    /// Keep only the inputs of the layers, and compute them again on the way back
    #[arg(long)]
    grad_checkpoint: bool,
    /// Type of the weights in memory; auto keeps the checkpoint's
    #[arg(long, default_value = "auto", value_parser = ["auto", "f32", "bf16", "f16"])]
    dtype: String,
    /// Type of products and activations
    #[arg(long, default_value = "auto", value_parser = ["auto", "f32", "bf16"])]
    compute_dtype: String,
    /// Branch, tag or commit of a hub model
    #[arg(long)]
    revision: Option<String>,
}

/// The flags that a plan can change to make a training fit.
#[derive(Clone, PartialEq)]
struct Choice {
    method: String,
    rank: usize,
    batch_size: usize,
    max_seq_len: usize,
    grad_checkpoint: bool,
}

impl Verb for Plan {
    fn run(self, _: &mut Session, task: Task<'_>) -> Answer {
        let (name, opened, spec) = self.shape(task)?;
        let mut choice = self.choice();
        if choice.max_seq_len > spec.max_positions {
            task.emit(Event::Warning(format!(
                "the model's context holds {} tokens: longer samples are cut to that",
                spec.max_positions
            )));
            choice.max_seq_len = spec.max_positions;
        }
        let source = opened.as_ref().map(|opened| &*opened.tensors);
        let take = |choice: &Choice| footprint(&self.job(&spec, source, choice)?);
        let asked = take(&choice)?;
        // What the process needs beside its buffers, and can be told without a run.
        let program = memory::file_pages() + memory::allocated().saturating_sub(memory::all_held());
        let usable = memory::usable();
        task.emit(Event::Text(format!(
            "{name}: {} parameters; {} to be trained with {}, in batches of {} × {} tokens",
            units::short(spec.parameters()),
            units::short(asked.trained),
            choice.method,
            choice.batch_size,
            choice.max_seq_len
        )));
        task.emit(Event::Memory(report(&asked, program)));
        let others: Vec<(String, Footprint)> = ["full", "lora", "qlora"]
            .into_iter()
            .map(|method| Ok((method.to_owned(), take(&Choice { method: method.to_owned(), ..choice.clone() })?)))
            .collect::<Result<_>>()?;
        task.emit(Event::Table(table(&others, usable)));
        let fits = asked.total() <= usable;
        let changes = if fits { Vec::new() } else { changes(&choice, asked.total(), &take)? };
        verdict(&asked, usable, &changes, task);
        let logits = (choice.batch_size * choice.max_seq_len * spec.vocabulary * size_of::<f32>()) as u64;
        truths(&asked, logits, task);
        Ok(json!({
            "model": name,
            "method": choice.method,
            "trainable_parameters": asked.trained,
            "parts": parts(&asked),
            "total_bytes": asked.total(),
            "available_bytes": usable,
            "fits": fits,
            "methods": others.iter().map(|(method, plan)| json!({
                "method": method,
                "trainable_parameters": plan.trained,
                "parts": parts(plan),
                "total_bytes": plan.total(),
                "fits": plan.total() <= usable,
            })).collect::<Vec<_>>(),
            "cards": CARDS.iter().map(|&(card, size)| json!({
                "card": card,
                "fits": on_card(&asked, size),
            })).collect::<Vec<_>>(),
            "context_bytes": CONTEXT,
            "changes": changes.iter().map(|change| json!({
                "change": change.flags,
                "total_bytes": change.total,
                "saved_bytes": asked.total().saturating_sub(change.total),
                "fits": change.total <= usable,
            })).collect::<Vec<_>>(),
            "pageable_bytes": asked.of(Purpose::Optimizer),
            "stored_logits_bytes": logits,
        }))
    }
}

impl Plan {
    fn choice(&self) -> Choice {
        Choice {
            method: if self.full { "full".to_owned() } else { self.method.clone() },
            rank: self.rank,
            batch_size: self.batch_size,
            max_seq_len: self.max_seq_len,
            grad_checkpoint: self.grad_checkpoint,
        }
    }

    /// What the model is called, its files if there are any, and its shape.
    fn shape(&self, task: Task<'_>) -> Result<(String, Option<Opened>, Spec)> {
        let is_here = self.source == "demo" || expand_home(Path::new(&self.source)).exists();
        if let (false, Some(spec)) = (is_here, model::known(&self.source)) {
            return Ok((self.source.clone(), None, spec?));
        }
        let cache = HubConfig { offline: true, ..HubConfig::from_env() };
        let opened = source::open_with(&self.source, self.revision.as_deref(), &task, &cache).map_err(|error| {
            let near = language::nearest(&self.source, model::known_names());
            match near {
                Some(near) if error.kind() == Kind::NotFound => error.hint(format!("did you mean {near}?")),
                _ if !is_here => {
                    let names = model::known_names().collect::<Vec<_>>().join(", ");
                    error.hint(if source::is_remote(&self.source) {
                        format!("plan downloads nothing: load {} first, or plan a known shape: {names}", self.source)
                    } else {
                        format!("give what load takes, or a known shape: {names}")
                    })
                }
                _ => error,
            }
        })?;
        let spec = Spec::from_config(&opened.config).map_err(|error| error.context(&opened.location))?;
        model::check(&spec, &*opened.tensors)?;
        Ok((opened.name.clone(), Some(opened), spec))
    }

    fn job<'a>(&self, spec: &'a Spec, source: Option<&'a dyn model::TensorSource>, choice: &Choice) -> Result<Job<'a>> {
        let named =
            |name: &str| -> Result<Option<DType>> { if name == "auto" { Ok(None) } else { name.parse().map(Some) } };
        let lora = LoraConfig {
            rank: choice.rank,
            alpha: 2.0 * choice.rank as f64,
            targets: Targets::parse(&self.targets),
            ..LoraConfig::default()
        };
        Ok(Job {
            spec,
            source,
            load: LoadOptions {
                dtype: named(&self.dtype)?,
                quantize: (choice.method == "qlora").then(QuantSpec::default),
                compute: named(&self.compute_dtype)?,
            },
            lora: (choice.method != "full").then_some(lora),
            batch_size: choice.batch_size,
            max_seq_len: choice.max_seq_len,
            grad_checkpoint: choice.grad_checkpoint,
        })
    }
}

/// A change of flags and what the training takes with it.
struct Change {
    flags: String,
    total: u64,
}

/// Up to three changes, those that save most first, and all of them together where none is enough; each planned anew.
fn changes(choice: &Choice, total: u64, take: &dyn Fn(&Choice) -> Result<Footprint>) -> Result<Vec<Change>> {
    type Step = (String, Box<dyn Fn(&mut Choice)>);
    let steps: [Step; 5] = [
        ("--method qlora".to_owned(), Box::new(|c| c.method = "qlora".to_owned())),
        ("--grad-checkpoint".to_owned(), Box::new(|c| c.grad_checkpoint = true)),
        (format!("--batch-size 1 --grad-accum {}", choice.batch_size), Box::new(|c| c.batch_size = 1)),
        (
            format!("--max-seq-len {}", (choice.max_seq_len / 2).max(1)),
            Box::new(|c| c.max_seq_len = (c.max_seq_len / 2).max(1)),
        ),
        (format!("--rank {}", (choice.rank / 2).max(1)), Box::new(|c| c.rank = (c.rank / 2).max(1))),
    ];
    let mut found = Vec::new();
    for (flags, step) in &steps {
        let mut changed = choice.clone();
        step(&mut changed);
        let with = take(&changed)?.total();
        if with < total {
            found.push((flags.clone(), step, with));
        }
    }
    found.sort_by_key(|one| one.2);
    found.truncate(3);
    let mut all = choice.clone();
    found.iter().for_each(|(_, step, _)| step(&mut all));
    let together = found.iter().map(|one| one.0.as_str()).collect::<Vec<_>>().join(" ");
    let several = found.len() > 1;
    let mut out: Vec<Change> = found.into_iter().map(|(flags, _, total)| Change { flags, total }).collect();
    if several {
        out.push(Change { flags: together, total: take(&all)?.total() });
    }
    Ok(out)
}

fn on_card(plan: &Footprint, gigabytes: u64) -> bool {
    plan.total() + CONTEXT <= gigabytes * 1_000_000_000
}

fn parts(plan: &Footprint) -> Value {
    plan.parts.iter().map(|(purpose, bytes)| json!({"name": purpose.name(), "bytes": bytes})).collect()
}

fn report(plan: &Footprint, program: u64) -> MemoryReport {
    let part = |&(purpose, bytes): &(Purpose, u64)| MemoryPart {
        name: purpose.name().to_owned(),
        bytes,
        why: match purpose {
            Purpose::Gradients => format!("{} × f32", units::short(plan.trained)),
            Purpose::Optimizer => format!("{} × two moments in f32", units::short(plan.trained)),
            Purpose::Activations => "at the longest batch".to_owned(),
            _ => String::new(),
        },
    };
    let mut parts: Vec<MemoryPart> = plan.parts.iter().map(part).collect();
    let why = "as it is now; scratch memory of operations comes on top".to_owned();
    parts.push(MemoryPart { name: "program".to_owned(), bytes: program, why });
    MemoryReport { parts, planned: true, ..MemoryReport::default() }
}

/// The three ways of training side by side, and where each fits.
fn table(methods: &[(String, Footprint)], usable: u64) -> Table {
    let mut rows = Vec::new();
    for (method, plan) in methods {
        let weights =
            [Purpose::QuantizedWeights, Purpose::QuantizationConstants, Purpose::LinearWeights, Purpose::Embedding];
        let state = [Purpose::Adapters, Purpose::Gradients, Purpose::Optimizer];
        let sum = |purposes: &[Purpose]| Cell::Bytes(purposes.iter().map(|purpose| plan.of(*purpose)).sum());
        let smallest = CARDS.iter().find(|card| on_card(plan, card.1));
        rows.push(vec![
            Cell::from(method.as_str()),
            Cell::Count(plan.trained),
            sum(&weights),
            sum(&state),
            Cell::Bytes(plan.of(Purpose::Activations)),
            Cell::Bytes(plan.total()),
            Cell::from(if plan.total() <= usable { "yes" } else { "no" }),
            Cell::from(smallest.map_or("none of these", |card| card.0)),
        ]);
    }
    let columns =
        vec!["method", "trained", "weights", "trained state", "activations", "sum", "fits here", "smallest card"];
    let cards: Vec<String> = CARDS.iter().map(|(card, size)| format!("{card} ({size} GB)")).collect();
    let note =
        format!("cards: {}; {} of each are assumed to go to the CUDA context", cards.join(", "), units::bytes(CONTEXT));
    Table { columns, rows, note, ..Table::default() }
}

fn verdict(asked: &Footprint, usable: u64, changes: &[Change], task: Task<'_>) {
    let (total, left) = (units::bytes(asked.total()), units::bytes(usable));
    if asked.total() <= usable {
        return task.emit(Event::Text(format!("it fits: {total} of the {left} that this machine has left")));
    }
    task.emit(Event::Warning(format!("it does not fit: {total} needed, {left} left on this machine")));
    let mut table = Table { columns: vec!["change", "saves", "then", "fits"], ..Table::default() };
    for change in changes {
        table.rows.push(vec![
            Cell::from(change.flags.as_str()),
            Cell::Bytes(asked.total().saturating_sub(change.total)),
            Cell::Bytes(change.total),
            Cell::from(if change.total <= usable { "yes" } else { "no" }),
        ]);
    }
    task.emit(Event::Table(table));
}

/// What is often told otherwise.
fn truths(plan: &Footprint, logits: u64, task: Task<'_>) {
    let optimizer = plan.of(Purpose::Optimizer);
    task.emit(Event::Text(format!(
        "a paged optimizer could move {} out of the way, {} of the sum; logits stored in f32 would take {} a copy, and are not: \
         the loss is computed tile by tile",
        units::bytes(optimizer),
        units::percent(optimizer as f64 / plan.total().max(1) as f64),
        units::bytes(logits)
    )));
}
