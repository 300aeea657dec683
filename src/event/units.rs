//! Numbers as people read them: one way for every sentence, table and axis.

/// Bytes in decimal units, as the file sizes of a hub: `512 B`, `19.5 MB`, `1.20 GB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    let x = n as f64;
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", x / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", x / 1e6),
        _ => format!("{:.2} GB", x / 1e9),
    }
}

/// A whole number with a comma between thousands.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A large number of parameters or tokens in short: `960`, `36.9 k`, `4.88 M`, `1.24 B`.
#[must_use]
pub fn short(n: u64) -> String {
    let x = n as f64;
    match n {
        0..10_000 => count(n),
        10_000..1_000_000 => format!("{:.1} k", x / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} M", x / 1e6),
        _ => format!("{:.2} B", x / 1e9),
    }
}

/// A share from 0 to 1 in percent, in steps of a tenth below 10: `42 %`, `3.5 %`, `< 0.1 %`.
#[must_use]
pub fn percent(share: f64) -> String {
    let p = share * 100.0;
    // What would be rounded to 10.0 has a digit less too.
    if p == 0.0 || p.abs() >= 9.95 {
        format!("{p:.0} %")
    } else if p.abs() >= 0.1 {
        format!("{p:.1} %")
    } else {
        let sign = if p < 0.0 { "> −" } else { "< " };
        format!("{sign}0.1 %")
    }
}

/// A time: `0.4 s`, `13 s`, `4:33`, `1:02:03`.
#[must_use]
pub fn seconds(s: f64) -> String {
    let whole = s.round() as u64;
    match whole {
        _ if s < 10.0 => format!("{s:.1} s"),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{}:{:02}", whole / 60, whole % 60),
        _ => format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60),
    }
}

/// A rate with three significant digits or none after the point: `7.42`, `612`.
#[must_use]
pub fn rate(x: f64) -> String {
    match x {
        _ if x >= 100.0 => format!("{x:.0}"),
        _ if x >= 10.0 => format!("{x:.1}"),
        _ => format!("{x:.2}"),
    }
}

/// `1 step`, `2 steps`.
#[must_use]
pub fn plural(n: usize, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{} {word}s", count(n as u64)) }
}

/// A change with its sign and so many decimals, as `−0.051`.
#[must_use]
pub fn signed(change: f64, decimals: usize) -> String {
    format!("{change:+.decimals$}").replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(53_100_000), "53.1 MB");
        assert_eq!(bytes(1_204_000_000), "1.20 GB");
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(short(4_884_480), "4.88 M");
        assert_eq!(short(960), "960");
        assert_eq!(percent(0.035), "3.5 %");
        assert_eq!(percent(0.67), "67 %");
        assert_eq!(seconds(273.0), "4:33");
        assert_eq!(seconds(59.7), "1:00");
        assert_eq!(seconds(0.41), "0.4 s");
        assert_eq!(plural(1, "step"), "1 step");
        assert_eq!(plural(2000, "step"), "2,000 steps");
    }
}
