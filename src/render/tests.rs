use crate::event::*;
use super::*;

fn noisy(n: usize) -> Chart {
    let mut seed = 7u64;
    let mut random = move || { seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407); (seed >> 33) as f64 / (1u64 << 31) as f64 - 0.5 };
    let t = n as f64;
    let losses: Vec<(usize, f64)> = (1..=n).map(|s| { let g = random() + random() + random() + random(); (s, 1.28 + 1.35 * (-(s as f64) / t * 7.0).exp() + 0.19 * g) }).collect();
    let evals: Vec<(usize, f64)> = (0..=10).map(|i| { let s = i * n / 10; (s, 1.33 + 1.25 * (-(s as f64) / t * 7.0).exp() + 0.13 * (s as f64 / t - 0.5).max(0.0)) }).collect();
    loss_chart("jargon-r16 on SmolLM2-135M · NF4", &losses, &evals, n)
}

#[test]
fn pictures() {
    let dir = std::path::Path::new("/tmp/pics");
    std::fs::create_dir_all(dir).unwrap();
    for n in [30, 500, 5000] {
        let c = noisy(n);
        for (t, name) in [(Theme::Light, "light"), (Theme::Dark, "dark")] {
            let s = svg(&c, t);
            println!("{n} svg {}", s.len());
            std::fs::write(dir.join(format!("c{n}-{name}.svg")), s).unwrap();
            let at = std::time::Instant::now();
            let p = png(&c, t).unwrap();
            println!("png {} {:?}", p.len(), at.elapsed());
            std::fs::write(dir.join(format!("c{n}-{name}.png")), p).unwrap();
        }
        println!("{}", braille(&c, 100, 14, Ink::PLAIN));
        let mut part = c.clone(); part.x_max = Some(n as f64 * 1.5); part.title.clear();
        std::fs::write(dir.join(format!("p{n}.png")), png(&part, Theme::Light).unwrap()).unwrap();
        println!("{}", braille(&part, 60, 9, Ink::PLAIN));
        println!("{}", braille(&c, 60, 8, Ink::COLOR));
    }
}

#[test]
fn more_pictures() {
    let dir = std::path::Path::new("/tmp/pics");
    let mut spike = noisy(200);
    for s in &mut spike.series { for p in &mut s.points { if (100.0..104.0).contains(&p.0) { p.1 = 900.0; } } }
    std::fs::write(dir.join("spike.png"), png(&spike, Theme::Light).unwrap()).unwrap();
    println!("{}\n{}", describe(&spike), braille(&spike, 100, 14, Ink::PLAIN));
    let ranks = |name: &str, add: f64| Series { name: name.into(), points: [2.0, 4.0, 8.0, 16.0, 32.0, 64.0].iter().zip([1.52, 1.44, 1.385, 1.352, 1.349, 1.351]).map(|(&r, y)| (r, y + add)).collect(), style: Style::Marked };
    let sweep = Chart { title: "held-out loss over rank".into(), x: "rank", y: "held-out loss", series: vec![ranks("all-linear", 0.0), ranks("attention", 0.01), ranks("mlp", 0.1)], x_max: None };
    std::fs::write(dir.join("sweep.png"), png(&sweep, Theme::Dark).unwrap()).unwrap();
    println!("{}", braille(&sweep, 80, 12, Ink::PLAIN));
    let many = Chart { series: (0..8).map(|i| Series { name: format!("r{i}"), points: (0..50).map(|s| (s as f64, 2.0 + 0.02 * i as f64 + 1.0/(1.0+s as f64))).collect(), style: Style::Bold }).collect(), x: "step", y: "loss", title: String::new(), x_max: None };
    std::fs::write(dir.join("many.png"), png(&many, Theme::Light).unwrap()).unwrap();
    println!("{}", braille(&many, 80, 12, Ink::PLAIN));
    let one = Chart { series: vec![Series { name: "a".into(), points: vec![(1.0, 2.0)], style: Style::Bold }], ..many.clone() };
    std::fs::write(dir.join("one.png"), png(&one, Theme::Light).unwrap()).unwrap();
    let none = Chart { series: vec![], ..many.clone() };
    std::fs::write(dir.join("none.png"), png(&none, Theme::Light).unwrap()).unwrap();
}
