//! The prompt: which model, how it is quantized, which adapters are active.

use crate::language::Names;

/// The prompt where nothing is loaded.
const BARE: &str = "lora> ";
/// What a prompt has beside the names: `lora `, ` ❯ `, a blank.
const FRAME: usize = 9;

/// How the prompt may look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Columns of the terminal.
    pub(super) width: usize,
    pub(super) color: bool,
    /// Whether the terminal shows more than ASCII.
    pub(super) unicode: bool,
}

/// `lora SmolLM2-135M·nf4 +r16 ❯ `: without colours, and with them if there are any.
pub(super) fn prompt(names: &Names, look: Look) -> (String, String) {
    let paint = |attributes: &str, text: &str| {
        if look.color && !text.is_empty() { format!("\x1b[{attributes}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let Some(base) = &names.base else { return (BARE.to_owned(), paint("1;36", BARE.trim_end()) + " ") };
    let room = (look.width / 2).saturating_sub(FRAME).clamp(20, 44);
    let (model, kind) = base.rsplit_once(" · ").unwrap_or((base, ""));
    let (dot, arrow, more) = if look.unicode { ("·", "❯", "…") } else { (".", ">", "~") };
    let kind = if kind.is_empty() { String::new() } else { format!("{dot}{}", kind.to_lowercase()) };
    let adapters = adapters(&names.active, room / 2, more);
    let model = cut(model, room.saturating_sub(columns(&kind) + columns(&adapters)).max(8), more);
    let gap = if adapters.is_empty() { "" } else { " " };
    let raw = format!("lora {model}{kind}{gap}{adapters} {arrow} ");
    let (kind, adapters) = (paint("2", &kind), paint("32", &adapters));
    let styled =
        format!("{} {}{kind}{gap}{adapters} {} ", paint("1;36", "lora"), paint("36", &model), paint("1", arrow));
    (raw, styled)
}

/// `+r16`, `+r16+chat`, or how many there are if their names are long.
fn adapters(active: &[String], room: usize, more: &str) -> String {
    let all: String = active.iter().map(|name| format!("+{name}")).collect();
    match active {
        _ if columns(&all) <= room => all,
        [_] => cut(&all, room, more),
        several => format!("+{} adapters", several.len()),
    }
}

/// The beginning of `text` that fits.
fn cut(text: &str, room: usize, more: &str) -> String {
    if columns(text) <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(1)).collect::<String>() + more
}

fn columns(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look { width: 80, color: false, unicode: true };

    fn names(base: &str, active: &[&str]) -> Names {
        let active = active.iter().map(|&name| name.to_owned()).collect();
        Names { base: (!base.is_empty()).then(|| base.to_owned()), active, ..Names::default() }
    }

    fn raw(base: &str, active: &[&str], look: Look) -> String {
        prompt(&names(base, active), look).0
    }

    #[test]
    fn it_says_what_stands() {
        assert_eq!(raw("", &["r16"], PLAIN), "lora> ");
        assert_eq!(raw("SmolLM2-135M · NF4", &["r16"], PLAIN), "lora SmolLM2-135M·nf4 +r16 ❯ ");
        assert_eq!(raw("demo · bf16", &[], PLAIN), "lora demo·bf16 ❯ ");
        assert_eq!(raw("demo · bf16", &["a", "b"], PLAIN), "lora demo·bf16 +a+b ❯ ");
        assert_eq!(raw("demo · NF4", &["r16"], Look { unicode: false, ..PLAIN }), "lora demo.nf4 +r16 > ");
    }

    #[test]
    fn it_leaves_room_to_type() {
        let long = "a-model-with-a-name-that-nobody-would-want-to-type";
        for width in [0, 60, 80, 200] {
            for active in [&[][..], &["an-adapter-with-a-long-name"], &["one-long-name", "and-another-name", "c"]] {
                let look = Look { width, ..PLAIN };
                let text = raw(&format!("{long} · bf16"), active, look);
                assert!(text.chars().count() <= (width / 2).max(34), "{width}: {text}");
                assert!(text.contains("…·bf16"), "{text}");
            }
        }
        assert!(raw("demo · NF4", &["one-long-name", "and-another-name"], PLAIN).contains("+2 adapters"));
    }

    #[test]
    fn colours_do_not_change_the_text() {
        for base in ["", "demo · NF4"] {
            let (raw, styled) = prompt(&names(base, &["r16"]), Look { color: true, ..PLAIN });
            let pieces =
                styled.split('\x1b').map(|p| p.strip_prefix('[').map_or(p, |p| &p[p.find('m').unwrap() + 1..]));
            assert_eq!(pieces.collect::<String>(), raw);
            assert_ne!(styled, raw);
        }
        let (raw, styled) = prompt(&names("demo · NF4", &[]), PLAIN);
        assert_eq!(raw, styled);
    }
}
