//! Prompts by adapters or scales: the rows of one batch, what differs, and by how much.

use serde_json::{Value, json};

use super::super::arguments::scales_need_an_adapter;
use crate::error::{Error, Result};
use crate::eval::mean;
use crate::event::{Cell, Event, Outputs, Table, Task, Unit};
use crate::generate::{Generated, Request, Sampler, generate_all, log_probabilities};
use crate::lora::Adapter;
use crate::model::Use;
use crate::session::{Answer, Session};

/// Tokens of prompts that one batch reads at most, unless one prompt has more.
const BATCH_TOKENS: usize = 2048;
/// The tokens on which the columns disagree most that are shown.
const MOST_TOKENS: usize = 8;

/// A prompt as it was typed and as it is read.
pub(super) struct Prompt {
    pub(super) text: String,
    pub(super) ids: Vec<u32>,
}

/// What writes: combinations of adapters at one scale, or one combination at several.
pub(super) struct Columns {
    /// A combination, its scale, its name above the text.
    all: Vec<(String, f64, String)>,
    /// The column that the others are compared with.
    reference: usize,
    is_strip: bool,
}

impl Columns {
    /// # Errors
    /// Several scales of the base alone, or of several combinations.
    pub(super) fn new(session: &Session, subjects: Vec<String>, scales: &[f64]) -> Result<Self> {
        if let [scale] = *scales {
            let all = subjects.into_iter().map(|subject| (subject.clone(), scale, subject)).collect();
            return Ok(Self { all, reference: 0, is_strip: false });
        }
        let adapters: Vec<String> = subjects.into_iter().filter(|subject| subject != "base").collect();
        let [subject] = adapters.as_slice() else {
            return Err(match adapters.first() {
                None => scales_need_an_adapter(session),
                Some(first) => Error::usage(format!(
                    "--scale: several scales go with one adapter, not with {}",
                    adapters.join(" and ")
                ))
                .hint(format!("--adapters {first}, or --adapters {} for both together", adapters.join("+"))),
            });
        };
        let all: Vec<_> = scales.iter().map(|&scale| (subject.clone(), scale, format!("scale {scale}"))).collect();
        let nearest = |wanted: f64| scales.iter().position(|scale| *scale == wanted);
        Ok(Self { all, reference: nearest(1.0).or(nearest(0.0)).unwrap_or(0), is_strip: true })
    }
}

/// What came of one prompt: a text for each column, and by how much less likely each column holds the reference's tokens.
struct Compared<'a> {
    prompt: &'a Prompt,
    made: Vec<Generated>,
    /// Log-probabilities of the reference's tokens by column; none where nothing is compared.
    likely: Vec<Vec<f64>>,
}

/// Writes all of it, shows it, and says what it came to.
///
/// # Errors
/// Interrupted, with what was written so far in the session's `partial`; what `generate` cannot read.
pub(super) fn run(
    session: &mut Session,
    prompts: &[Prompt],
    columns: &Columns,
    sampler: &Sampler,
    task: Task<'_>,
) -> Answer {
    let is_table = prompts.len() > 1 || columns.is_strip;
    session.partial = Some(json!({"rows": [], "prompt_tokens": prompts[0].ids.len()}));
    let base = session.base()?;
    let (decoder, stop) = (&base.decoder, base.stop_tokens());
    let backend = session.backend.as_ref();
    let (mut adapters, mut uses): (Vec<&Adapter>, Vec<Vec<Use>>) = (Vec::new(), Vec::new());
    for (subject, scale, _) in &columns.all {
        let (these, of_these) = session.combination(subject, *scale as f32)?;
        uses.push(of_these.into_iter().map(|u| Use { slot: u.slot + adapters.len(), ..u }).collect());
        adapters.extend(these);
    }
    let mut rows: Vec<Compared<'_>> = Vec::new();
    let mut meter = is_table.then(|| task.meter("generating", prompts.len() as u64, Unit::Items));
    let mut stopped = None;
    for group in groups(prompts, columns.all.len()) {
        // Rows of one adapter stand together, so that its products are made for all of them at once.
        let request = |(c, prompt): (usize, &Prompt)| Request {
            prompt: prompt.ids.clone(),
            uses: uses[c].clone(),
            label: (!is_table).then(|| columns.all[c].2.clone()),
        };
        let requests: Vec<Request> =
            (0..columns.all.len()).flat_map(|c| group.iter().map(move |prompt| (c, prompt))).map(request).collect();
        let (made, error) =
            generate_all(decoder, &base.tokenizer, &adapters, &requests, sampler, &stop, backend, task)?;
        stopped = error;
        let mut by_prompt: Vec<Vec<Generated>> = group.iter().map(|_| Vec::new()).collect();
        made.into_iter().enumerate().for_each(|(i, made)| by_prompt[i % group.len()].push(made));
        for (prompt, made) in group.iter().zip(by_prompt) {
            let mut likely = Vec::new();
            if made.len() > 1 && stopped.is_none() {
                let ids = &made[columns.reference].ids;
                match log_probabilities(decoder, &adapters, &uses, &prompt.ids, ids, backend, task) {
                    Ok(found) => likely = found,
                    Err(error) => stopped = Some(error),
                }
            }
            rows.push(Compared { prompt, made, likely });
        }
        if stopped.is_some() {
            break;
        }
        if let Some(meter) = &mut meter {
            meter.advance(group.len() as u64, "")?;
        }
    }
    let answer = answer(columns, &rows);
    if is_table {
        let texts = |row: &Compared<'_>| row.made.iter().map(|made| made.text.clone()).collect();
        task.emit(Event::Outputs(Outputs {
            title: if rows.len() == 1 { rows[0].prompt.text.clone() } else { String::new() },
            columns: columns.all.iter().map(|column| column.2.clone()).collect(),
            reference: columns.reference,
            rows: rows.iter().map(|row| (row.prompt.text.clone(), texts(row))).collect(),
        }));
    }
    if let Some(error) = stopped {
        session.partial = Some(answer);
        return Err(error);
    }
    if columns.all.len() > 1 {
        task.emit(Event::Table(summary(columns, &rows)));
        if let [row] = rows.as_slice() {
            let text = |id: u32| base.tokenizer.token_text(id);
            if let Some(table) = tokens(columns, row, text) {
                task.emit(Event::Table(table));
            }
        }
    }
    Ok(answer)
}

/// Prompts that are read together.
fn groups(prompts: &[Prompt], columns: usize) -> Vec<&[Prompt]> {
    let (mut groups, mut rest) = (Vec::new(), prompts);
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = |prompt: &&Prompt| {
            tokens += prompt.ids.len() * columns;
            tokens <= BATCH_TOKENS
        };
        let (group, behind) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        groups.push(group);
        rest = behind;
    }
    groups
}

impl Compared<'_> {
    /// By how much likelier than the reference a column holds each token of the reference, in nats.
    fn differences(&self, column: usize, reference: usize) -> Vec<f64> {
        let Some(likely) = self.likely.get(column) else { return Vec::new() };
        likely.iter().zip(&self.likely[reference]).map(|(a, b)| a - b).collect()
    }

    /// The tokens that a column and the reference begin with alike; `None` if all are.
    fn departs(&self, column: usize, reference: usize) -> Option<usize> {
        let (a, b) = (&self.made[column].ids, &self.made[reference].ids);
        (a != b).then(|| a.iter().zip(b).take_while(|(a, b)| a == b).count())
    }
}

fn answer(columns: &Columns, rows: &[Compared<'_>]) -> Value {
    let mut out = Vec::new();
    for row in rows {
        for (c, ((subject, scale, _), made)) in columns.all.iter().zip(&row.made).enumerate() {
            let differences = row.differences(c, columns.reference);
            out.push(json!({
                "adapter": subject,
                "scale": scale,
                "prompt": row.prompt.text,
                "text": made.text,
                "tokens": made.tokens,
                "tokens_per_second": made.tokens_per_second,
                "departs": if row.made.len() > 1 { json!(row.departs(c, columns.reference)) } else { Value::Null },
                "divergence": mean(&differences),
                "token_divergences": differences,
            }));
        }
    }
    json!({
        "rows": out,
        "prompt_tokens": rows.first().map_or(0, |row| row.prompt.ids.len()),
        "reference": columns.all[columns.reference].2,
    })
}

/// For each column where it departs and how far its view of the reference's words is off.
fn summary(columns: &Columns, rows: &[Compared<'_>]) -> Table {
    let reference = columns.reference;
    let name = &columns.all[reference].2;
    let row = |(c, column): (usize, &(String, f64, String))| {
        let departs: Vec<f64> = rows.iter().filter_map(|row| row.departs(c, reference)).map(|n| n as f64).collect();
        let differences: Vec<f64> = rows.iter().flat_map(|row| row.differences(c, reference)).collect();
        let number = |x: Option<f64>, digits| x.map_or(Cell::Empty, |x| Cell::Number(x, digits));
        let is_reference = c == reference;
        let after = if is_reference { Cell::Empty } else { number(mean(&departs), usize::from(rows.len() > 1)) };
        let tokens: usize = rows.iter().map(|row| row.made[c].tokens).sum();
        vec![
            Cell::from(column.2.as_str()),
            Cell::Count(tokens as u64),
            if is_reference { Cell::Empty } else { Cell::Count((rows.len() - departs.len()) as u64) },
            after,
            match mean(&differences).filter(|_| !is_reference) {
                Some(x) => Cell::Signed(x, 3),
                None => Cell::Empty,
            },
        ]
    };
    Table {
        title: format!("compared with {name}"),
        columns: vec!["", "tokens", "same texts", "departs after", "divergence"],
        rows: columns.all.iter().enumerate().map(row).collect(),
        best: None,
        note: format!(
            "departs after: tokens that are the same. divergence: mean difference of the log-probabilities of the tokens of \
             {name}, in nats; below 0 they are less likely here"
        ),
    }
}

/// The reference's tokens on which the columns disagree most, in their order; nothing if they agree.
fn tokens(columns: &Columns, row: &Compared<'_>, text: impl Fn(u32) -> String) -> Option<Table> {
    let reference = columns.reference;
    let differences: Vec<Vec<f64>> = (0..columns.all.len()).map(|c| row.differences(c, reference)).collect();
    let ids = &row.made[reference].ids;
    let most = |i: usize| differences.iter().map(|d| d[i].abs()).fold(0.0, f64::max);
    let mut order: Vec<usize> = (0..ids.len()).filter(|&i| most(i) >= 0.1).collect();
    order.sort_by(|&a, &b| most(b).total_cmp(&most(a)));
    order.truncate(MOST_TOKENS);
    order.sort_unstable();
    let of = |&i: &usize| {
        // The column that is farthest off.
        let c = (0..columns.all.len()).max_by(|&a, &b| differences[a][i].abs().total_cmp(&differences[b][i].abs()))?;
        Some(vec![
            Cell::Count(i as u64 + 1),
            Cell::Text(format!("“{}”", text(ids[i]).replace('\n', "⏎"))),
            Cell::Share(row.likely[reference][i].exp()),
            Cell::from(columns.all[c].2.as_str()),
            Cell::Share(row.likely[c][i].exp()),
            Cell::Signed(differences[c][i], 2),
        ])
    };
    let rows: Vec<_> = order.iter().filter_map(of).collect();
    let name = &columns.all[reference].2;
    (!rows.is_empty()).then(|| Table {
        title: format!("where they disagree most on the words of {name}"),
        columns: vec!["token", "text", "likely", "farthest off", "likely there", "difference"],
        rows,
        best: None,
        note: format!("likely: the probability that {name} gives its own token; difference of the logarithms, in nats"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(tokens: usize) -> Prompt {
        Prompt { text: String::new(), ids: vec![0; tokens] }
    }

    #[test]
    fn prompts_are_read_together_as_far_as_a_batch_holds_them() {
        let prompts = [prompt(500), prompt(500), prompt(100), prompt(5000), prompt(1)];
        let sizes = |columns| groups(&prompts, columns).iter().map(|group| group.len()).collect::<Vec<_>>();
        assert_eq!(sizes(1), [3, 1, 1]);
        assert_eq!(sizes(2), [2, 1, 1, 1]);
        assert_eq!(groups(&[], 2).len(), 0);
    }

    #[test]
    fn texts_depart_where_their_tokens_do() {
        let made = |ids: &[u32]| Generated {
            text: String::new(),
            tokens: ids.len(),
            ids: ids.to_vec(),
            tokens_per_second: 0.0,
            stopped: None,
        };
        let prompt = prompt(1);
        let row = Compared {
            prompt: &prompt,
            made: vec![made(&[1, 2, 3]), made(&[1, 2, 3]), made(&[1, 5]), made(&[1, 2])],
            likely: vec![vec![-1.0, -2.0, -0.5], vec![-1.5, -1.0, -0.5]],
        };
        assert_eq!([1, 2, 3].map(|c| row.departs(c, 0)), [None, Some(1), Some(2)]);
        assert_eq!(row.differences(1, 0), [-0.5, 1.0, 0.0]);
        assert!(row.differences(3, 0).is_empty());
    }
}
