//! How a comparison begins: its flags become settings of each method, its data samples.

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::super::attach_lora::settings as lora_settings;
use super::super::sweep::words_of_train;
use super::super::train::{Material, Train, config, template};
use super::course::{Course, Way};
use super::report::{Comparison, Measured, Method};
use super::{Compare, check_base};
use crate::error::{Error, Result};
use crate::event::{Event, Task};
use crate::lora::Adapter;
use crate::session::Session;
use crate::train::Schedule;

impl Compare {
    /// Reads the data and begins the run; nothing has been trained yet, and the base is as it was.
    pub(super) fn open(self, session: &mut Session, task: Task<'_>) -> Result<Course> {
        session.base()?;
        if let Some(twice) = (1..self.methods.len()).find(|&i| self.methods[..i].contains(&self.methods[i])) {
            return Err(Error::usage(format!("--methods: {} is named twice", self.methods[twice].name())));
        }
        let lora = self.lora.config()?;
        check_base(session)?;
        self.check_names(session, task)?;
        let trained = Adapter::count(&lora, &session.base()?.decoder.linears)? as u64;
        if self.shared.0.iter().any(|word| word.starts_with("--probe=")) {
            return Err(Error::usage("compare scores no general text")
                .hint("train DATA --probe FILE does, by one method at a time"));
        }
        let mut words = words_of_train(session, &self.data, &self.shared, self.seed)?;
        words.push("--no-probe".to_owned());
        words.push(format!("--seed={}", self.seed));
        let flags = Train::parse(&words)?;
        let material = flags.material(session, task)?;
        let schedule = flags.schedule(&material)?;
        let plan = flags.plan(&material, schedule.steps)?;
        let methods = self.methods.clone();
        let ways: Vec<Way> = methods.iter().map(|method| self.way(*method, &words, schedule)).collect::<Result<_>>()?;

        let Some(held_out) = material.held_out.as_ref() else { return Err(Error::bug("nothing was held out")) };
        let base = session.base()?;
        let all = base.decoder.spec.parameters();
        let titles: Vec<&str> = methods.iter().map(|method| method.title()).collect();
        let title = format!("{} on {}", titles.join(", "), base.opened.name);
        let mut whole = config(session, &material.data, Some(held_out), &ways[0].settings, &material.options, None)?;
        whole["compare"] = json!({"words": session.words});
        whole["adapter"] = json!(methods.iter().map(|method| method.name()).collect::<Vec<_>>().join(", "));
        whole["title"] = json!(title);
        let measured = methods.iter().zip(&ways).map(|(&method, way)| {
            let trainable = if method == Method::Full { all } else { trained };
            Measured::new(method, way.settings.learning_rate, trainable)
        });
        let comparison = Comparison {
            title,
            data: held_out.data.name.clone(),
            steps: schedule.steps,
            parameters: all,
            lora: lora_settings(&lora),
            original: None,
            methods: measured.collect(),
        };
        let before = base.quantization();
        let recorder = session.runs.begin(&whole)?;
        let template = template(&material.data, &material.tokenized);
        let Material { data, tokenized, held_out, options, .. } = material;
        Ok(Course {
            comparison,
            ways,
            lora,
            seed: self.seed,
            fingerprint: tokenized.fingerprint(),
            samples: Arc::from(tokenized.samples),
            packs: Arc::from(tokenized.packs),
            data,
            held_out,
            options,
            template,
            plan,
            recorder,
            before,
            begun: Instant::now(),
        })
    }

    /// What `train` would be told to train by a method alone.
    fn way(&self, method: Method, words: &[String], schedule: Schedule) -> Result<Way> {
        let mut arguments = words.to_vec();
        let rate = if method == Method::Full { self.full_learning_rate } else { self.learning_rate };
        arguments.push(format!("--learning-rate={rate}"));
        let settings = Train::parse(&arguments)?.settings(schedule).map_err(|error| match method {
            Method::Full => Error::usage(error.message().replace("--learning-rate", "--full-learning-rate"))
                .hint(error.hint_text().unwrap_or_default()),
            Method::Lora | Method::Qlora => error,
        })?;
        Ok(Way { settings, arguments })
    }

    /// Checks that the names of the adapters are free. Those of an earlier comparison are, because their run keeps them.
    fn check_names(&self, session: &Session, task: Task<'_>) -> Result<()> {
        for method in self.methods.iter().filter(|method| **method != Method::Full) {
            let name = method.name();
            let Some(live) = session.adapters.iter().find(|live| live.name == name) else { continue };
            let own = live.run.as_deref().filter(|run| run.ends_with(&format!("/{name}")));
            match own {
                _ if self.replace => {}
                Some(run) => {
                    let dir = session.runs.root().join(run);
                    task.emit(Event::Text(format!("{name} is replaced; {} keeps the earlier one", dir.display())));
                }
                None => {
                    return Err(Error::state(format!(
                        "there is an adapter {name} already, which comes from no comparison"
                    ))
                    .hint(format!("rename {name} {name}-0, or --replace")));
                }
            }
        }
        Ok(())
    }
}
