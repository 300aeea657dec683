//! Versions of an adapter: what it was after each training, exact to the bit, with what the optimizer needs to go on.

use std::path::{Path, PathBuf};

use super::state::{Live, Origin, Session};
use crate::device::{Buffer, Purpose};
use crate::error::{Error, Result};
use crate::language;
use crate::lora::Adapter;
use crate::train::checkpoint::{self, Position};
use crate::train::{Checkpoint, Optimizer};

/// Versions of all adapters take at most so many bytes of memory; beyond that the oldest lie in their run's folder.
const MEMORY: u64 = 256 << 20;

/// An adapter's versions, oldest first, and the one it stands at.
#[derive(Default)]
pub struct Versions {
    all: Vec<Version>,
    current: Option<usize>,
    made: usize,
}

/// An adapter as it was.
pub struct Version {
    /// Counted from 0, its start.
    pub number: usize,
    /// A name that the user gave it.
    pub label: Option<String>,
    /// The version it was trained on from; it may be gone.
    pub parent: Option<usize>,
    /// As in [`Live`].
    pub steps: usize,
    pub template: Option<Option<String>>,
    pub run: Option<String>,
    pub saved: bool,
    /// Smoothed over the last steps as in the run's chart, and the last one on held-out rows, in nats.
    pub loss: Option<f64>,
    pub held_out: Option<f64>,
    state: State,
}

/// Where a version's numbers are.
enum State {
    /// Made again from the seed.
    Seed(u64),
    Memory(Kept),
    /// In this folder of its run.
    Disk(PathBuf),
}

/// What a version keeps of an adapter.
pub struct Kept {
    pub params: Buffer<f32>,
    /// Where its run stood, and the moments; none if it was not trained in this program.
    pub training: Option<(Position, Optimizer)>,
}

impl Kept {
    fn bytes(&self) -> u64 {
        let moments = |o: &Optimizer| o.moments().iter().map(|(a, b)| a.bytes() + b.bytes()).sum::<u64>();
        self.params.own_bytes() + self.training.as_ref().map_or(0, |(_, optimizer)| moments(optimizer))
    }

    fn duplicate(&self) -> Result<Self> {
        let copy = |(position, optimizer): &(Position, Optimizer)| -> Result<_> {
            Ok((position.clone(), optimizer.duplicate()?))
        };
        Ok(Self { params: self.params.share(), training: self.training.as_ref().map(copy).transpose()? })
    }
}

impl Version {
    /// Bytes of memory that it takes beside the adapter: none for parameters that still are the adapter's, or another version's.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        if let State::Memory(kept) = &self.state { kept.bytes() } else { 0 }
    }

    /// Where it is, for people: empty for memory.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.state {
            State::Seed(_) => "made from its seed".to_owned(),
            State::Memory(_) => String::new(),
            State::Disk(dir) => dir.display().to_string(),
        }
    }

    /// Its numbers, copied; `like` is the adapter it is a version of.
    fn kept(&self, like: &Adapter, linears: &[crate::lora::LinearInfo]) -> Result<Kept> {
        match &self.state {
            State::Seed(seed) => {
                Ok(Kept { params: Adapter::new(like.config.clone(), linears, *seed)?.params, training: None })
            }
            State::Memory(kept) => kept.duplicate(),
            State::Disk(dir) => {
                let Checkpoint { position, params, optimizer } =
                    checkpoint::read(dir).map_err(|e| e.context(format!("version {}", self.number)))?;
                if params.len() != like.params.len() {
                    return Err(Error::format(format!("{}: of another adapter", dir.display())));
                }
                let params = Buffer::from_vec(Purpose::Adapters, params);
                Ok(Kept { params, training: Some((position, optimizer)) })
            }
        }
    }
}

impl Versions {
    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Version> {
        self.all.iter()
    }

    /// The version the adapter stands at; none where that was dropped.
    #[must_use]
    pub fn current(&self) -> Option<&Version> {
        self.all.iter().find(|v| Some(v.number) == self.current)
    }

    pub(super) fn current_mut(&mut self) -> Option<&mut Version> {
        self.all.iter_mut().find(|v| Some(v.number) == self.current)
    }

    /// A version by its number or label.
    ///
    /// # Errors
    /// There is none; the versions there are, are named.
    pub fn find(&self, adapter: &str, version: &str) -> Result<&Version> {
        let is_it = |v: &&Version| v.number.to_string() == version || v.label.as_deref() == Some(version);
        self.all.iter().find(is_it).ok_or_else(|| {
            let names: Vec<String> =
                self.all.iter().map(|v| v.label.clone().unwrap_or_else(|| v.number.to_string())).collect();
            let error = Error::not_found(format!("{adapter} has no version {version}"));
            match language::nearest(version, names.iter().map(String::as_str)) {
                Some(near) => error.hint(format!("did you mean {adapter}@{near}?")),
                None if names.is_empty() => error.hint("train makes one, snapshot too"),
                None => error.hint(format!("there are {}", names.join(", "))),
            }
        })
    }

    /// Gives the version it stands at a label, which no other version then has.
    pub fn label(&mut self, label: &str) {
        for version in &mut self.all {
            if Some(version.number) == self.current {
                version.label = Some(label.to_owned());
            } else if version.label.as_deref() == Some(label) {
                version.label = None;
            }
        }
    }

    /// Forgets a version, with its file.
    pub fn remove(&mut self, number: usize) {
        self.all.retain(|version| {
            if let (true, State::Disk(dir)) = (version.number == number, &version.state) {
                // What cannot be removed takes room on disk and harms nobody.
                let _ = std::fs::remove_dir_all(dir);
            }
            version.number != number
        });
        if self.current == Some(number) {
            self.current = None;
        }
    }

    fn push(&mut self, version: Version) {
        self.current = Some(version.number);
        self.made = version.number + 1;
        self.all.push(version);
    }
}

/// What a new version is told beside what its adapter holds.
#[derive(Default)]
pub struct Made {
    /// Whether it was trained from the start, whatever version stood before.
    pub afresh: bool,
    pub loss: Option<f64>,
    pub held_out: Option<f64>,
    /// Where the run stood and its moments.
    pub training: Option<(Position, Optimizer)>,
}

impl Live {
    /// Begins its versions with what it is now.
    pub(super) fn begin_versions(&mut self) {
        let state = match self.origin {
            Origin::New(seed) if self.steps == 0 => State::Seed(seed),
            _ => State::Memory(Kept { params: self.adapter.params.share(), training: None }),
        };
        self.versions = Versions::default();
        self.push(state, None, Made::default());
    }

    /// Makes a version of what it is now, which shares its parameters until they are changed, and returns its number.
    pub fn make_version(&mut self, mut made: Made) -> usize {
        let params = self.adapter.params.share();
        let training = made.training.take();
        let parent = if made.afresh { Some(0) } else { self.versions.current };
        self.push(State::Memory(Kept { params, training }), parent, made);
        self.versions.made - 1
    }

    fn push(&mut self, state: State, parent: Option<usize>, made: Made) {
        self.versions.push(Version {
            number: self.versions.made,
            label: None,
            parent,
            steps: self.steps,
            template: self.template.clone(),
            run: self.run.clone(),
            saved: self.saved,
            loss: made.loss,
            held_out: made.held_out,
            state,
        });
    }

    /// Where training goes on from: the checkpoint of the version it stands at, if that has one.
    ///
    /// # Errors
    /// Out of memory; its file is gone.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        let Some(version) = self.versions.current() else { return Ok(None) };
        let kept = match &version.state {
            State::Seed(_) => return Ok(None),
            State::Memory(kept) => kept.duplicate()?,
            State::Disk(_) => version.kept(&self.adapter, &[])?,
        };
        let whole = |(position, optimizer)| Checkpoint { position, params: kept.params.host().to_vec(), optimizer };
        Ok(kept.training.map(whole))
    }
}

impl Session {
    /// Puts the adapter at `index` back to its version `number`. Everything of it changes, or nothing.
    ///
    /// # Errors
    /// The version's file is gone; out of memory.
    pub fn restore(&mut self, index: usize, number: usize) -> Result<()> {
        let linears = &self.base.as_ref().map_or(&[][..], |base| &base.decoder.linears);
        let live = &mut self.adapters[index];
        let version = live.versions.find(&live.name, &number.to_string())?;
        let kept = version.kept(&live.adapter, linears)?;
        let saved = live.saved;
        if let Some(left) = live.versions.current_mut() {
            left.saved = saved;
        }
        let version = live.versions.find(&live.name, &number.to_string())?;
        live.adapter.params = kept.params;
        (live.steps, live.saved) = (version.steps, version.saved);
        (live.run, live.template) = (version.run.clone(), version.template.clone());
        live.versions.current = Some(number);
        Ok(())
    }

    /// A new live adapter from a version of the one at `index`; it does not become active.
    ///
    /// # Errors
    /// As [`Session::restore`].
    pub fn branch(&mut self, index: usize, number: usize, name: &str) -> Result<()> {
        let linears = &self.base()?.decoder.linears;
        let live = &self.adapters[index];
        let version = live.versions.find(&live.name, &number.to_string())?;
        let kept = version.kept(&live.adapter, linears)?;
        let mut new = Live {
            name: name.to_owned(),
            adapter: live.adapter.with_params(&kept.params),
            origin: live.origin.clone(),
            template: version.template.clone(),
            steps: version.steps,
            run: version.run.clone(),
            saved: version.saved,
            versions: Versions::default(),
        };
        let made = Made { loss: version.loss, held_out: version.held_out, ..Made::default() };
        new.push(State::Memory(kept), None, made);
        self.adapters.push(new);
        self.settle_versions();
        Ok(())
    }

    /// Keeps the versions of all adapters within their room: the oldest that can go to their run's folder do. One that cannot
    /// be written stays.
    pub fn settle_versions(&mut self) {
        self.settle_versions_within(MEMORY);
    }

    fn settle_versions_within(&mut self, room: u64) {
        let root = self.runs.root().to_owned();
        let mut held: u64 = self.adapters.iter().flat_map(|live| live.versions.iter()).map(Version::bytes).sum();
        for live in &mut self.adapters {
            let current = live.versions.current;
            for version in live.versions.all.iter_mut().filter(|v| Some(v.number) != current) {
                if held <= room {
                    return;
                }
                let bytes = version.bytes();
                if version.put_away(&root, &live.name).is_ok_and(|gone| gone) {
                    held -= bytes;
                }
            }
        }
    }
}

impl Version {
    /// Writes it to its run's folder and lets go of its memory; false if it stays, for it has no run.
    fn put_away(&mut self, runs: &Path, adapter: &str) -> Result<bool> {
        let (State::Memory(Kept { params, training: Some((position, optimizer)) }), Some(run)) =
            (&self.state, &self.run)
        else {
            return Ok(false);
        };
        let dir = runs.join(run).join("versions").join(format!("{adapter}-{}", self.number));
        std::fs::create_dir_all(&dir).map_err(|e| Error::io("make the folder", &dir, e))?;
        checkpoint::write(&dir, position, params.host(), optimizer)?;
        self.state = State::Disk(dir);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::lora::LoraConfig;
    use crate::train::Runs;

    fn position(step: usize) -> Position {
        Position { step, begin: 0, steps: 9, arguments: Vec::new(), data: String::new() }
    }

    fn session(test: &str) -> (Session, PathBuf) {
        let root = std::env::temp_dir().join(format!("loralab-versions-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        let mut session = Session { runs: Runs::at(root.clone()), ..Session::new() };
        let config = LoraConfig { rank: 1, alpha: 1.0, ..LoraConfig::default() };
        let params = Buffer::from_vec(Purpose::Adapters, vec![0.0; 4]);
        let adapter = Adapter { config, sites: Vec::new(), params, counts: Vec::new() };
        let mut live = Live {
            name: "a".to_owned(),
            adapter,
            origin: Origin::Folder(root.clone()),
            template: None,
            steps: 0,
            run: None,
            saved: true,
            versions: Versions::default(),
        };
        live.begin_versions();
        session.adapters.push(live);
        (session, root)
    }

    fn train(session: &mut Session, value: f32) {
        let live = &mut session.adapters[0];
        live.adapter.params.host_mut().fill(value);
        (live.steps, live.run, live.saved) = (live.steps + 1, Some("0001".to_owned()), false);
        let moment = || Buffer::from_vec(Purpose::Optimizer, vec![value; 4]);
        let optimizer = Optimizer::restored(vec![(moment(), moment())], live.steps as u64, 0.0);
        live.make_version(Made { training: Some((position(live.steps), optimizer)), ..Made::default() });
    }

    #[test]
    fn versions_come_back_from_memory_and_from_disk() {
        let (mut session, root) = session("back");
        for value in [1.0, 2.0, 3.0] {
            train(&mut session, value);
        }
        session.adapters[0].versions.label("good");
        // The start has no run to lie in, and where the adapter stands it stays.
        session.settle_versions_within(0);
        let there =
            |session: &Session| -> Vec<bool> { session.adapters[0].versions.iter().map(|v| v.bytes() > 0).collect() };
        assert_eq!(there(&session), [true, false, false, true]);
        for (number, value) in [(1, 1.0), (3, 3.0), (2, 2.0), (0, 0.0)] {
            session.restore(0, number).unwrap();
            let live = &session.adapters[0];
            assert_eq!(live.adapter.params.host(), [value; 4]);
            assert_eq!((live.steps, live.saved), (number, number == 0));
            let checkpoint = live.checkpoint().unwrap();
            assert_eq!(checkpoint.as_ref().map(|c| c.position.step), (number > 0).then_some(number));
            if let Some(checkpoint) = checkpoint {
                assert_eq!(checkpoint.optimizer.moments()[0].1.host(), [value; 4]);
            }
        }
        let versions = &session.adapters[0].versions;
        assert_eq!(versions.iter().map(|v| v.parent).collect::<Vec<_>>(), [None, Some(0), Some(1), Some(2)]);
        assert_eq!(versions.find("a", "good").unwrap().number, 3);
        // A file that is gone leaves the adapter as it stands.
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(session.restore(0, 1).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(session.adapters[0].versions.current().unwrap().number, 0);
    }

    #[test]
    fn wrong_versions_are_named() {
        let (mut session, _) = session("names");
        train(&mut session, 1.0);
        session.adapters[0].versions.label("good");
        let versions = &mut session.adapters[0].versions;
        for (wrong, hint) in [("goof", "a@good"), ("7", "there are 0, good"), ("", "there are")] {
            let error = versions.find("a", wrong).err().unwrap();
            assert!(error.hint_text().is_some_and(|h| h.contains(hint)), "{error:?}");
        }
        versions.remove(1);
        assert!(versions.current().is_none() && versions.find("a", "good").is_err());
        // Numbers are not given twice.
        train(&mut session, 2.0);
        assert_eq!(session.adapters[0].versions.current().unwrap().number, 2);
    }
}
