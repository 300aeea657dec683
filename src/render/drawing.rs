//! How a terminal shows a chart: in pixels where it can, else in characters.

mod iterm2;
mod kitty;
mod sixel;

use super::ansi::{self, Ink};
use super::ascii::ascii;
use super::board::chart_height;
use super::braille::braille;
use super::chart::{Theme, describe};
use super::png::{Pixels, png};
use crate::event::Chart;

/// A picture takes at most so many columns.
const WIDEST: usize = 90;

/// The ways to show a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawing {
    /// Pixels by kitty's graphics protocol.
    Kitty,
    /// Pixels by iTerm2's inline images.
    Iterm2,
    /// Pixels by DEC's sixels.
    Sixel,
    Braille,
    Ascii,
    /// A sentence that says what the chart shows.
    Words,
}

impl Drawing {
    /// What `LORALAB_PLOT` (`auto`, `image`, `braille`, `ascii`, `none`) and the variables that terminals set ask for.
    /// Pixels need a terminal: `colors` tells whether there is one that wants colours, `unicode` whether it shows more
    /// than ASCII.
    #[must_use]
    pub fn choose(variable: impl Fn(&str) -> Option<String>, is_terminal: bool, colors: bool, unicode: bool) -> Self {
        let wish = variable("LORALAB_PLOT").unwrap_or_default().to_lowercase();
        let characters = if unicode { Self::Braille } else { Self::Ascii };
        let pixels = || protocol(&variable);
        match wish.as_str() {
            "braille" => Self::Braille,
            "ascii" => Self::Ascii,
            "none" => Self::Words,
            // Most of those that do not say what they can show sixels.
            "image" if is_terminal => pixels().unwrap_or(Self::Sixel),
            _ if is_terminal && colors && unicode => pixels().unwrap_or(characters),
            _ => characters,
        }
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kitty => "pixels (kitty)",
            Self::Iterm2 => "pixels (iTerm2)",
            Self::Sixel => "pixels (sixel)",
            Self::Braille => "braille",
            Self::Ascii => "ASCII",
            Self::Words => "words",
        }
    }

    /// The chart without its title, ended by a line break, in at most `width` columns.
    pub(super) fn draw(self, chart: &Chart, width: usize, ink: Ink) -> String {
        let dots = || braille(chart, width, chart_height(width), ink);
        match self {
            Self::Braille => dots(),
            Self::Ascii => ascii(&dots()),
            Self::Words => ansi::wrap(&describe(chart), width) + "\n",
            // A chart that cannot be made a picture of is still shown.
            Self::Kitty | Self::Iterm2 | Self::Sixel => self.picture(chart, width).unwrap_or_else(dots),
        }
    }

    fn picture(self, chart: &Chart, width: usize) -> Option<String> {
        let chart = Chart { title: String::new(), ..chart.clone() };
        let theme = theme(std::env::var("COLORFGBG").ok().as_deref());
        let columns = width.saturating_sub(1).clamp(1, WIDEST);
        let escape = match self {
            Self::Kitty => kitty::encode(&png(&chart, theme).ok()?, columns),
            Self::Iterm2 => iterm2::encode(&png(&chart, theme).ok()?, columns),
            _ => sixel::encode(&Pixels::of_page(&chart, theme).ok()?),
        };
        Some(escape + "\n")
    }
}

/// The protocol of the terminal that set these variables. What runs inside tmux or screen reaches no terminal but theirs.
fn protocol(variable: impl Fn(&str) -> Option<String>) -> Option<Drawing> {
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    let value = |name: &str| variable(name).unwrap_or_default();
    let (term, program) = (value("TERM"), value("TERM_PROGRAM"));
    let begins = |names: &[&str]| names.iter().any(|name| term.starts_with(name));
    if is_set("TMUX") || is_set("STY") || begins(&["tmux", "screen", "dumb"]) {
        None
    } else if is_set("KITTY_WINDOW_ID") || begins(&["xterm-kitty", "xterm-ghostty"]) || program == "ghostty" {
        Some(Drawing::Kitty)
    } else if ["iTerm.app", "WezTerm"].contains(&program.as_str()) || value("LC_TERMINAL") == "iTerm2" {
        Some(Drawing::Iterm2)
    } else if begins(&["foot", "mlterm", "yaft", "contour"]) {
        Some(Drawing::Sixel)
    } else {
        None
    }
}

/// Read off `COLORFGBG`, as `15;0`, which many terminals set; dark if it is not.
fn theme(colors: Option<&str>) -> Theme {
    let background = colors.and_then(|colors| colors.rsplit(';').next()?.parse::<u8>().ok());
    if background.is_some_and(|color| color == 7 || color > 8) { Theme::Light } else { Theme::Dark }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::loss_chart;

    fn choose(variables: &[(&str, &str)], is_terminal: bool) -> Drawing {
        let variable = |name: &str| variables.iter().find(|v| v.0 == name).map(|v| v.1.to_owned());
        Drawing::choose(variable, is_terminal, true, true)
    }

    #[test]
    fn terminals_are_known_by_what_they_set() {
        for (variables, drawing) in [
            ([("TERM", "xterm-256color")].as_slice(), Drawing::Braille),
            (&[("KITTY_WINDOW_ID", "1"), ("TERM", "xterm-kitty")], Drawing::Kitty),
            (&[("TERM", "xterm-ghostty")], Drawing::Kitty),
            (&[("TERM_PROGRAM", "iTerm.app")], Drawing::Iterm2),
            (&[("TERM_PROGRAM", "WezTerm")], Drawing::Iterm2),
            (&[("LC_TERMINAL", "iTerm2")], Drawing::Iterm2),
            (&[("TERM", "foot")], Drawing::Sixel),
            (&[("KITTY_WINDOW_ID", "1"), ("TMUX", "/x")], Drawing::Braille),
            (&[("KITTY_WINDOW_ID", "1"), ("TERM", "screen")], Drawing::Braille),
            (&[("KITTY_WINDOW_ID", "")], Drawing::Braille),
        ] {
            assert_eq!(choose(variables, true), drawing, "{variables:?}");
            assert_eq!(choose(variables, false), Drawing::Braille, "{variables:?}");
        }
    }

    #[test]
    fn the_user_decides() {
        for (wish, drawing) in [
            ("braille", Drawing::Braille),
            ("ascii", Drawing::Ascii),
            ("NONE", Drawing::Words),
            ("image", Drawing::Kitty),
            ("auto", Drawing::Kitty),
            ("nonsense", Drawing::Kitty),
        ] {
            assert_eq!(choose(&[("LORALAB_PLOT", wish), ("KITTY_WINDOW_ID", "1")], true), drawing, "{wish}");
        }
        assert_eq!(choose(&[("LORALAB_PLOT", "image")], true), Drawing::Sixel);
        assert_eq!(choose(&[("LORALAB_PLOT", "image")], false), Drawing::Braille);
        let kitty = |name: &str| (name == "KITTY_WINDOW_ID").then(|| "1".to_owned());
        assert_eq!(Drawing::choose(kitty, true, false, true), Drawing::Braille);
        assert_eq!(Drawing::choose(kitty, true, false, false), Drawing::Ascii);
    }

    #[test]
    fn every_way_shows_the_chart() {
        let chart = loss_chart("run 1", &[(1, 2.0), (2, 1.0)], &[(2, 1.5)], 2);
        let draw = |drawing: Drawing| drawing.draw(&chart, 60, Ink::PLAIN);
        assert!(draw(Drawing::Kitty).starts_with("\x1b_G"));
        assert!(draw(Drawing::Iterm2).starts_with("\x1b]1337;File="));
        assert!(draw(Drawing::Sixel).starts_with("\x1bP"));
        assert!(draw(Drawing::Braille).contains('•'));
        assert!(draw(Drawing::Ascii).is_ascii(), "{}", draw(Drawing::Ascii));
        assert!(draw(Drawing::Words).contains("loss over step"), "{}", draw(Drawing::Words));
        for drawing in [Drawing::Ascii, Drawing::Words] {
            assert!(draw(drawing).lines().all(|line| line.chars().count() <= 60), "{}", draw(drawing));
        }
    }

    #[test]
    fn light_terminals_say_so() {
        for (colors, light) in [
            (None, false),
            (Some("15;0"), false),
            (Some("0;15"), true),
            (Some("0;default;7"), true),
            (Some("x"), false),
        ] {
            assert_eq!(theme(colors) == Theme::Light, light, "{colors:?}");
        }
    }
}
