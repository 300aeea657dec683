//! `data`: data sets, and a look at what training sees of them.

use clap::Parser;
use serde_json::json;

use super::Verb;
use super::arguments::{number, positive, within_context};
use crate::data::{self, DataSet, Template, TokenizeOptions, Tokenized};
use crate::error::{Error, Result};
use crate::event::{Cell, Event, Table, Task, units};
use crate::session::{Answer, Session};

mod check;

/// Read a data set, name it, and show what training sees of it
///
/// A file of JSON lines, JSON, CSV or text, or a data set made with `%%data NAME`. Rows have prompt and response, Alpaca's
/// instruction, input and output, messages, conversations, text, or input_ids. The response is trained, the prompt is not.
#[derive(Parser)]
#[command(name = "data", verbatim_doc_comment)]
pub(super) struct Data {
    /// A file or a name; without one the data sets are listed
    source: Option<String>,
    /// Name of the data set; the file's if not given
    #[arg(long)]
    name: Option<String>,
    /// What its rows look like
    #[arg(long, default_value = "auto", value_parser = ["auto", "text", "prompt", "alpaca", "messages", "sharegpt", "tokens"])]
    format: String,
    /// How prompt and response become one text
    #[arg(long, default_value = "auto", value_parser = ["auto", "chatml", "llama3", "alpaca", "none"])]
    template: String,
    /// Hold this share of the rows out, as NAME.valid
    #[arg(long, value_parser = number, value_name = "SHARE")]
    valid: Option<f64>,
    /// Seed of the rows held out
    #[arg(long, default_value = "0")]
    seed: u64,
    /// The longest sequence; what goes beyond is cut
    #[arg(long, default_value = "512", value_parser = positive)]
    max_seq_len: usize,
    /// Show this many samples with every token marked trained, masked or cut
    #[arg(long, value_name = "N")]
    show: Option<usize>,
    /// Look for what spoils a training: duplicates, empty or uniform responses, lengths, leakage
    #[arg(long)]
    check: bool,
}

impl Verb for Data {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let Some(source) = &self.source else {
            if self.check {
                return Err(Error::usage("--check needs a data set").hint("data NAME --check"));
            }
            return list(session, task);
        };
        let mut data = session.find_data(source, self.format.parse()?)?;
        if let Some(name) = &self.name {
            data.name.clone_from(name);
        }
        let mut held_out = None;
        if let Some(share) = self.valid {
            let (train, valid) = data.split(share, self.seed)?;
            (data, held_out) = (train, Some(valid));
        }
        let rows = data.rows.len();
        task.emit(Event::Text(format!("{}: {}, format {}", data.name, units::plural(rows, "row"), data.format)));
        let mut answer = json!({"data": data.name, "rows": rows, "format": data.format.to_string()});
        if let Some(valid) = &held_out {
            answer["valid"] = json!({"data": valid.name, "rows": valid.rows.len()});
            task.emit(Event::Text(format!("{}: {} held out", valid.name, units::plural(valid.rows.len(), "row"))));
        }
        if session.base.is_some() {
            self.look(session, &data, held_out.as_ref(), &mut answer, task)?;
        } else if self.show.is_some() || self.check {
            task.emit(Event::Warning("tokens are a matter of the model: `load` one to see them".to_owned()));
            if self.check {
                Self::report(session, &data, held_out.as_ref(), None, &mut answer, task)?;
            }
        }
        if let Some(valid) = held_out {
            session.add_data(valid);
        }
        session.add_data(data);
        Ok(answer)
    }
}

impl Data {
    /// Tokenizes, tells what was noticed, and shows samples.
    fn look(
        &self,
        session: &Session,
        data: &DataSet,
        held_out: Option<&DataSet>,
        answer: &mut serde_json::Value,
        task: Task<'_>,
    ) -> Result<()> {
        let template: Template = self.template.parse()?;
        let max_seq_len = within_context(session.base()?, self.max_seq_len, task);
        let options = TokenizeOptions { template, max_seq_len, ..TokenizeOptions::default() };
        let tokenized = session.tokenize(data, &options, task)?;
        let (tokens, trained) = (tokenized.tokens(), tokenized.scored());
        let longest = tokenized.lengths().last().copied().unwrap_or(0);
        task.emit(Event::Text(format!(
            "{} tokens, {} of them trained ({}); longest sample {}; template: {}",
            units::count(tokens as u64),
            units::count(trained as u64),
            units::percent(trained as f64 / tokens.max(1) as f64),
            units::count(longest as u64),
            tokenized.rendering.name()
        )));
        if self.check {
            Self::report(session, data, held_out, Some((&tokenized, options)), answer, task)?;
        } else {
            for finding in data::check(data, &tokenized, session.base()?.decoder.spec.max_positions) {
                task.emit(Event::Warning(finding));
            }
        }
        let base = session.base()?;
        let of = tokenized.samples.len();
        for (i, sample) in tokenized.samples.iter().take(self.show.unwrap_or(0)).enumerate() {
            let title = format!("{}, sample {} of {}", data.name, i + 1, units::count(of as u64));
            task.emit(Event::Tokens(data::show(sample, &base.tokenizer, title)));
        }
        answer["tokens"] = json!(tokens);
        answer["trained_tokens"] = json!(trained);
        answer["longest"] = json!(longest);
        answer["truncated"] = json!(tokenized.truncated);
        answer["untrained_rows"] = json!(tokenized.untrained);
        Ok(())
    }

    /// Shows findings. What tokens tell is left out without them.
    fn report(
        session: &Session,
        data: &DataSet,
        held_out: Option<&DataSet>,
        tokens: Option<(&Tokenized, TokenizeOptions)>,
        answer: &mut serde_json::Value,
        task: Task<'_>,
    ) -> Result<()> {
        let others = check::others(&data.name, held_out, &session.data);
        let triples = data::triples(data);
        let mut found = data::check_rows(data, triples, others.iter().copied());
        let tokenized = tokens.as_ref().map(|(tokenized, _)| *tokenized);
        if let Some((tokenized, options)) = tokens {
            // What is lost is what the same rows would train if none were cut.
            let mut lost = 0;
            if let (1.., Some(&max_seq_len)) = (tokenized.truncated, tokenized.lengths().last()) {
                let whole = session.tokenize(data, &TokenizeOptions { max_seq_len, ..options }, task)?;
                lost = whole.scored() - tokenized.scored();
            }
            let context = session.base()?.decoder.spec.max_positions;
            found.extend(data::check_tokens(data, tokenized, context, Some(lost)));
            answer["lengths"] = check::lengths(&data.name, tokenized, task);
            answer["lost_tokens"] = json!(lost);
        }
        check::show(data, triples, &others, &found, tokenized, task);
        let checks = found.iter().map(|f| json!({"rule": f.rule, "found": f.found, "message": f.message}));
        answer["checks"] = checks.collect();
        Ok(())
    }
}

fn list(session: &Session, task: Task<'_>) -> Answer {
    let rows: Vec<_> =
        session.data.iter().map(|d| (d.name.clone(), d.rows.len(), d.format.to_string(), d.origin.clone())).collect();
    if rows.is_empty() {
        task.emit(Event::Text("there are no data sets; files need no name to be trained on".to_owned()));
    } else {
        let mut table = Table { columns: vec!["data", "rows", "format", "from"], ..Table::default() };
        for (name, count, format, origin) in &rows {
            table.rows.push(vec![
                Cell::from(name.as_str()),
                Cell::Count(*count as u64),
                Cell::from(format.as_str()),
                Cell::from(origin.as_str()),
            ]);
        }
        task.emit(Event::Table(table));
    }
    let rows: Vec<_> =
        rows.iter().map(|(n, c, f, o)| json!({"data": n, "rows": c, "format": f, "origin": o})).collect();
    Ok(json!({"data": rows}))
}
