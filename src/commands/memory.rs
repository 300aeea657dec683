//! `memory`: what takes how much.

use clap::Parser;
use serde_json::json;

use super::Verb;
use crate::device::memory::{self, PURPOSES, Purpose};
use crate::event::{Event, MemoryPart, MemoryReport, Task, units};
use crate::session::{Answer, Session};

/// Show what takes how much memory, against what the process really holds
#[derive(Parser)]
#[command(name = "memory")]
pub(super) struct Memory {}

impl Verb for Memory {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        session.backend.release();
        memory::trim();
        let report = report(session);
        let answer = json!({
            "parts": report.parts.iter().map(|p| json!({"name": p.name, "bytes": p.bytes, "why": p.why})).collect::<Vec<_>>(),
            "peaks": PURPOSES.iter().filter(|p| p.is_passing() && memory::peak(**p) > 0)
                .map(|p| json!({"name": p.name(), "bytes": memory::peak(*p)})).collect::<Vec<_>>(),
            "counted_bytes": report.parts.iter().map(|p| p.bytes).sum::<u64>(),
            "resident_bytes": report.resident_bytes,
            "device_bytes": report.device_bytes,
            "peak_memory_bytes": report.peak_bytes,
        });
        task.emit(Event::Memory(report));
        let gone = PURPOSES.iter().filter(|p| p.is_passing() && memory::held(**p) == 0 && memory::peak(**p) > 0);
        let gone: Vec<String> = gone.map(|p| format!("{} {}", p.name(), units::bytes(memory::peak(*p)))).collect();
        if !gone.is_empty() {
            task.emit(Event::Text(format!("freed again, at most so far: {}", gone.join(" · "))));
        }
        Ok(answer)
    }
}

fn report(session: &Session) -> MemoryReport {
    let mut parts: Vec<MemoryPart> = Vec::new();
    for purpose in PURPOSES {
        let bytes = memory::held(purpose);
        if bytes > 0 {
            parts.push(MemoryPart { name: purpose.name().to_owned(), bytes, why: why(session, purpose) });
        }
    }
    if session.tokenizer_bytes > 0 {
        let why = "vocabulary and merges, measured while it was loaded".to_owned();
        parts.push(MemoryPart { name: "tokenizer".to_owned(), bytes: session.tokenizer_bytes, why });
    }
    // What the allocator has handed out beside the buffers and the tokenizer: data sets, templates, runs, threads.
    let rest = memory::allocated().saturating_sub(memory::all_held() + session.tokenizer_bytes);
    let why = "data sets, templates, caches, by the allocator's count".to_owned();
    parts.push(MemoryPart { name: "other allocations".to_owned(), bytes: rest, why });
    let why = "its code and files in memory, the built-in model among them".to_owned();
    parts.push(MemoryPart { name: "program".to_owned(), bytes: memory::file_pages(), why });
    let (resident_bytes, peak_bytes) = (memory::resident(), memory::peak_resident());
    MemoryReport { parts, resident_bytes, peak_bytes, ..MemoryReport::default() }
}

/// How many versions there are in memory, as a part of a sentence; empty for none.
fn versions(session: &Session) -> String {
    let kept = session.adapters.iter().flat_map(|a| a.versions.iter()).filter(|v| v.bytes() > 0).count();
    if kept == 0 {
        String::new()
    } else {
        format!("; {} kept, drop NAME@VERSION frees one", units::plural(kept, "version"))
    }
}

/// Where a part's size comes from.
fn why(session: &Session, purpose: Purpose) -> String {
    let peak = || format!("{} at most so far", units::bytes(memory::peak(purpose)));
    let Ok(base) = session.base() else { return String::new() };
    let d = &base.decoder;
    let weights = |quantized: bool| -> u64 {
        let of = (0..d.linears.len()).map(|i| &d.linear(i).weight).filter(|w| w.is_quantized() == quantized);
        of.map(|w| (w.rows() * w.cols()) as u64).sum()
    };
    match purpose {
        Purpose::QuantizedWeights => {
            let bits = if base.type_name() == "int8" { 8 } else { 4 };
            format!("{} weights × {bits} bit", units::short(weights(true)))
        }
        Purpose::QuantizationConstants => match base.quant {
            Some(q) if q.block_size == 0 => "one f32 scale a row".to_owned(),
            Some(q) if q.double_quant => format!("one 8-bit scale for {} weights, double quantization", q.block_size),
            Some(q) => format!("one f32 scale for {} weights", q.block_size),
            None => String::new(),
        },
        Purpose::LinearWeights => format!("{} weights, {}", units::short(weights(false)), base.type_name()),
        Purpose::Embedding => {
            let head = if d.head.is_some() { "with an output head of its own" } else { "tied to the output head" };
            format!("{} × {}, {head}", units::count(d.spec.vocabulary as u64), d.spec.hidden)
        }
        Purpose::Adapters => {
            // What adapters share is held once.
            let count = memory::held(Purpose::Adapters) / size_of::<f32>() as u64;
            format!("{} parameters × f32{}", units::short(count), versions(session))
        }
        Purpose::Optimizer if !versions(session).is_empty() => format!("{}{}", peak(), versions(session)),
        purpose if purpose.is_passing() => peak(),
        _ => String::new(),
    }
}
