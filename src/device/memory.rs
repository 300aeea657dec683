//! What memory is used for, how much the process holds, and how much is left.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::{Error, Kind, Result};
use crate::event::units;

/// What a buffer is for: the lines of a memory breakdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Codes of quantized linear layers.
    QuantizedWeights,
    /// Their absmax, nested absmax and row scales.
    QuantizationConstants,
    /// Weights of linear layers that are not quantized.
    LinearWeights,
    /// Embedding, output head and norms.
    Embedding,
    /// `lora_A` and `lora_B`, snapshots of them included.
    Adapters,
    /// Gradients of what is trained.
    Gradients,
    /// The optimizer's moments.
    Optimizer,
    /// What the forward pass keeps for the backward pass, and the working set of one layer.
    Activations,
    /// Keys and values of tokens already generated.
    KvCache,
    /// Scratch memory of operations: dequantized panels, score tiles, a tile of logits.
    Workspace,
    /// Tokenized data sets.
    Data,
}

/// Every purpose, in the order of a memory breakdown.
pub const PURPOSES: [Purpose; 11] = [
    Purpose::QuantizedWeights,
    Purpose::QuantizationConstants,
    Purpose::LinearWeights,
    Purpose::Embedding,
    Purpose::Adapters,
    Purpose::Gradients,
    Purpose::Optimizer,
    Purpose::Activations,
    Purpose::KvCache,
    Purpose::Workspace,
    Purpose::Data,
];

impl Purpose {
    /// Whether it is held only while something is done: training, an evaluation, a generation.
    #[must_use]
    pub fn is_passing(self) -> bool {
        matches!(
            self,
            Purpose::Gradients | Purpose::Optimizer | Purpose::Activations | Purpose::KvCache | Purpose::Workspace
        )
    }

    /// Its name in a memory breakdown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Purpose::QuantizedWeights => "quantized weights",
            Purpose::QuantizationConstants => "quantization constants",
            Purpose::LinearWeights => "linear weights",
            Purpose::Embedding => "embedding, head, norms",
            Purpose::Adapters => "adapters",
            Purpose::Gradients => "gradients",
            Purpose::Optimizer => "optimizer",
            Purpose::Activations => "activations",
            Purpose::KvCache => "KV cache",
            Purpose::Workspace => "workspace",
            Purpose::Data => "data",
        }
    }
}

static NOW: [AtomicU64; PURPOSES.len()] = [const { AtomicU64::new(0) }; PURPOSES.len()];
static PEAK: [AtomicU64; PURPOSES.len()] = [const { AtomicU64::new(0) }; PURPOSES.len()];
static ALL: AtomicU64 = AtomicU64::new(0);
static ALL_PEAK: AtomicU64 = AtomicU64::new(0);

pub(super) fn add(purpose: Purpose, bytes: u64) {
    let now = NOW[purpose as usize].fetch_add(bytes, Relaxed) + bytes;
    PEAK[purpose as usize].fetch_max(now, Relaxed);
    let all = ALL.fetch_add(bytes, Relaxed) + bytes;
    ALL_PEAK.fetch_max(all, Relaxed);
}

pub(super) fn sub(purpose: Purpose, bytes: u64) {
    NOW[purpose as usize].fetch_sub(bytes, Relaxed);
    ALL.fetch_sub(bytes, Relaxed);
}

/// Bytes held now for `purpose`.
#[must_use]
pub fn held(purpose: Purpose) -> u64 {
    NOW[purpose as usize].load(Relaxed)
}

/// The most bytes ever held for `purpose`.
#[must_use]
pub fn peak(purpose: Purpose) -> u64 {
    PEAK[purpose as usize].load(Relaxed)
}

/// Allocations below this are not worth a look at the machine.
const SMALL: u64 = 8 << 20;

/// Asks whether a buffer of `bytes` can be allocated, leaving a little for everything else.
///
/// # Errors
/// As [`admit_all`].
pub fn admit(purpose: Purpose, bytes: u64) -> Result<()> {
    if bytes < SMALL { Ok(()) } else { admit_all(purpose.name(), bytes).map_err(|e| e.hint(advice(purpose))) }
}

/// Asks whether `bytes` can be allocated for `what`, in however many buffers.
///
/// # Errors
/// [`Kind::OutOfMemory`] with what was asked for and what is left; nothing was allocated. [`Kind::Usage`] for a
/// `LORALAB_MEMORY_LIMIT` that cannot be read.
pub fn admit_all(what: &str, bytes: u64) -> Result<()> {
    limit()?;
    let left = usable();
    if bytes <= left {
        return Ok(());
    }
    let (bytes, left) = (units::bytes(bytes), units::bytes(left));
    Err(Error::new(Kind::OutOfMemory, format!("not enough memory for {what}: {bytes} needed, {left} left"))
        .hint("unload what is not needed: `memory` shows what takes how much"))
}

/// Bytes that buffers can still have: what the process needs beside them must fit too.
#[must_use]
pub fn usable() -> u64 {
    available().saturating_sub(64 << 20)
}

fn advice(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Activations | Purpose::Workspace => {
            "smaller --batch-size with more --grad-accum, smaller --max-seq-len, or --grad-checkpoint"
        }
        Purpose::Gradients | Purpose::Optimizer | Purpose::Adapters => "a smaller --rank or fewer --targets",
        Purpose::LinearWeights => "load SOURCE --quantize nf4, which takes a quarter of 16 bit",
        Purpose::KvCache => "a smaller --max-tokens or fewer --adapters at once",
        _ => "unload what is not needed: `memory` shows what takes how much",
    }
}

/// Bytes that can still be allocated: what the machine has left, or what its control group or `LORALAB_MEMORY_LIMIT`
/// (for tests and shared machines) still allows, whichever is least.
#[must_use]
pub fn available() -> u64 {
    let machine = meminfo("MemAvailable:").unwrap_or(u64::MAX);
    let own = limit().ok().flatten().map_or(u64::MAX, |limit| limit.saturating_sub(resident()));
    machine.min(own).min(cgroup_left().unwrap_or(u64::MAX))
}

/// `LORALAB_MEMORY_LIMIT`: bytes, or `500M`, `8G`, `8GiB`.
///
/// # Errors
/// [`Kind::Usage`] if it is no size: a limit that is set must not be passed over.
fn limit() -> Result<Option<u64>> {
    match std::env::var("LORALAB_MEMORY_LIMIT") {
        Ok(text) if !text.is_empty() => size(&text).map(Some).ok_or_else(|| {
            Error::usage(format!("LORALAB_MEMORY_LIMIT={text} is not a size"))
                .hint("set it to a number of bytes, as 500M, 8G or 8GiB, or unset it")
        }),
        _ => Ok(None),
    }
}

/// A number of bytes; K, M and G are powers of 1000 (`KB` too), `KiB`, `MiB` and `GiB` of 1024.
fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let factor: u64 = match unit.trim_start() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000 * 1000,
        "g" | "gb" => 1000 * 1000 * 1000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| (number * factor as f64) as u64)
}

/// What the control group of this process still allows (version 2, then version 1).
fn cgroup_left() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let (limit, used, stat) = match read("/sys/fs/cgroup/memory.max") {
        Some(limit) => (limit, read("/sys/fs/cgroup/memory.current")?, "/sys/fs/cgroup/memory.stat"),
        None => (
            read("/sys/fs/cgroup/memory/memory.limit_in_bytes")?,
            read("/sys/fs/cgroup/memory/memory.usage_in_bytes")?,
            "/sys/fs/cgroup/memory/memory.stat",
        ),
    };
    // File pages count as used but give way when memory is needed.
    let stat = std::fs::read_to_string(stat).unwrap_or_default();
    let field = |name: &str| stat.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0);
    let reclaimable = field("inactive_file ") + field("active_file ");
    Some(limit.saturating_sub(used.saturating_sub(reclaimable)))
}

fn meminfo(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    kilobytes(&text, field)
}

fn status(field: &str) -> u64 {
    std::fs::read_to_string("/proc/self/status").ok().and_then(|text| kilobytes(&text, field)).unwrap_or(0)
}

fn kilobytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(field))?;
    Some(line[field.len()..].trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

/// Bytes of main memory the process holds now (`VmRSS`).
#[must_use]
pub fn resident() -> u64 {
    status("VmRSS:")
}

/// The most bytes of main memory the process has held (`VmHWM`).
#[must_use]
pub fn peak_resident() -> u64 {
    status("VmHWM:")
}

/// Bytes of the program's own files in memory: code, read-only data, the built-in model (`RssFile`).
#[must_use]
pub fn file_pages() -> u64 {
    status("RssFile:")
}

/// Bytes handed out by the C allocator and not given back, buffers included; 0 where it cannot tell.
#[must_use]
pub fn allocated() -> u64 {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallinfo2 only reads the allocator's counters.
        let info = unsafe { libc::mallinfo2() };
        (info.uordblks + info.hblkhd) as u64
    }
    #[cfg(not(target_env = "gnu"))]
    0
}

/// Makes the C allocator give freed memory back at once, so that what the process holds is what it counts.
///
/// glibc raises the size from which it maps memory separately each time such a block is freed; buffers would then lie in
/// its heap and leave holes there. A fixed threshold keeps every buffer its own mapping.
pub fn tame_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets parameters of the allocator; it is called before other threads start.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 20);
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Buffers from this size on are worth pages of 2 MB: the first use of each page costs a fault, and the processor remembers few
/// addresses of pages.
const HUGE: usize = 16 << 20;

/// Asks the system for large pages where `data` lies, if it is large.
pub(super) fn prefer_huge_pages<T>(data: &[T]) {
    #[cfg(target_os = "linux")]
    if size_of_val(data) >= HUGE {
        let page = 4096;
        let start = (data.as_ptr() as usize).next_multiple_of(page);
        let len = (data.as_ptr() as usize + size_of_val(data) - start) / page * page;
        // SAFETY: it is advice about whole pages of memory that belongs to `data`; their content does not change.
        unsafe {
            libc::madvise(start as *mut libc::c_void, len, libc::MADV_HUGEPAGE);
        }
    }
}

/// Bytes of all buffers.
#[must_use]
pub fn all_held() -> u64 {
    ALL.load(Relaxed)
}

/// Begins to measure anew for [`peak_held`].
pub fn restart_peak() {
    ALL_PEAK.store(all_held(), Relaxed);
}

/// The most bytes of all buffers together since [`restart_peak`].
#[must_use]
pub fn peak_held() -> u64 {
    ALL_PEAK.load(Relaxed)
}

/// Gives what the allocator holds in reserve back to the system.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Buffer;
    use super::*;

    #[test]
    fn buffers_are_counted_while_they_live() {
        let before = held(Purpose::Data);
        let buffer = Buffer::<f32>::zeros(Purpose::Data, 1000).expect("4 kB fit");
        assert_eq!(held(Purpose::Data) - before, 4000);
        assert!(peak(Purpose::Data) >= before + 4000);
        assert!(peak_held() >= 4000 && all_held() >= 4000);
        drop(buffer);
        assert_eq!(held(Purpose::Data), before);
    }

    #[test]
    fn what_cannot_fit_is_refused_before_it_is_allocated() {
        let error = Buffer::<f32>::zeros(Purpose::Activations, 1 << 50).expect_err("4 PB do not fit");
        assert_eq!(error.kind(), Kind::OutOfMemory);
        assert!(error.message().contains("activations"), "{error}");
        assert!(error.hint_text().is_some_and(|h| h.contains("--batch-size")));
    }

    #[test]
    fn sizes_have_units_and_nonsense_is_none() {
        for (text, bytes) in [
            ("200000000", 200_000_000),
            ("100M", 100_000_000),
            ("1.5 gb", 1_500_000_000),
            ("64KiB", 65_536),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "abc", "M", "-5", "10X", "1e9", "1.2.3G", "inf"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn the_process_holds_something() {
        // First what is, then the most there was: other tests allocate meanwhile.
        let now = resident();
        assert!(now > 1 << 20 && peak_resident() >= now);
        assert!(available() > 0);
    }
}
