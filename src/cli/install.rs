//! `install`, `uninstall`: the kernel made known to Jupyter, or forgotten again.

mod places;
mod spec;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::{Error, Kind, Result};
use crate::event::{Cell, Event, Sink, Table};
use crate::files::Folder;
use crate::render::{Terminal, TerminalOptions};
use spec::Spec;

/// Where the kernelspec stands.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Place {
    /// For this user, in Jupyter's folder for data (the default)
    #[arg(long)]
    user: bool,

    /// For the active Python environment
    #[arg(long)]
    sys_prefix: bool,

    /// In PREFIX/share/jupyter/kernels
    #[arg(long)]
    prefix: Option<PathBuf>,
}

impl Place {
    /// The folder that holds a folder for each kernel.
    fn kernels(&self) -> Result<PathBuf> {
        match &self.prefix {
            Some(prefix) => std::path::absolute(prefix)
                .map(|prefix| places::below(&prefix))
                .map_err(|e| Error::io("find", prefix, e)),
            None if self.sys_prefix => places::environment(),
            None => places::user(),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Install {
    #[command(flatten)]
    place: Place,

    /// The name that notebooks and `jupyter kernelspec` know it by
    #[arg(long, default_value = spec::NAME, value_parser = spec::name)]
    name: String,

    /// The name that people see; that of --name if not given
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,

    /// A variable of the environment the kernel runs in, as CUDA_VISIBLE_DEVICES=0; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = spec::variable)]
    env: Vec<(String, String)>,

    /// Replaces a kernel of that name even if it is another program's
    #[arg(long)]
    force: bool,

    /// Installs nothing: lists where Jupyter finds this kernel, and whether its program is there
    #[arg(long, exclusive = true)]
    status: bool,
}

#[derive(Debug, Args)]
pub(super) struct Uninstall {
    #[command(flatten)]
    place: Place,

    /// The name it was installed by
    #[arg(long, default_value = spec::NAME, value_parser = spec::name)]
    name: String,

    /// Removes a kernel of that name even if it is another program's
    #[arg(long)]
    force: bool,
}

/// Writes the kernelspec, or with `--status` lists those there are.
///
/// # Errors
/// Another program's kernel has the name, there is no such place, or it cannot be written.
pub(super) fn install(arguments: &Install) -> Result<u8> {
    let terminal = Terminal::new(TerminalOptions::default());
    if arguments.status {
        status(&terminal);
        return Ok(0);
    }
    let kernels = arguments.place.kernels()?;
    let folder = kernels.join(&arguments.name);
    let old = Spec::read(&folder);
    if !arguments.force {
        refuse_foreign(old.as_ref(), "choose another --name, or add --force to replace it")?;
    }
    let program = program()?;
    let display_name = arguments.display_name.as_ref().unwrap_or(&arguments.name);
    let kernel_json = spec::kernel_json(&program, display_name, &arguments.env);
    let elsewhere = |error: Error| match error.kind() {
        Kind::Io if error.hint_text().is_none() => {
            error.hint("choose another place: --user, --sys-prefix, --prefix PREFIX")
        }
        _ => error,
    };
    let write = || {
        let new = Folder::create(&folder, arguments.force || old.is_some())?;
        new.write("kernel.json", |out| out.write_all(kernel_json.as_bytes()))?;
        for (name, bytes) in spec::LOGOS {
            new.write(name, |out| out.write_all(bytes))?;
        }
        new.commit()
    };
    write().map_err(elsewhere)?;
    let done = if old.is_some() { "replaced" } else { "installed" };
    say(
        &terminal,
        format!("{done} the kernel {} in {}\nit runs {}", arguments.name, folder.display(), program.display()),
    );
    if !places::all().contains(&kernels) {
        let data = kernels.parent().unwrap_or(&kernels);
        let warning = format!("Jupyter does not look there by itself: JUPYTER_PATH must hold {}", data.display());
        terminal.emit(Event::Warning(warning));
    }
    Ok(0)
}

/// Removes the kernelspec.
///
/// # Errors
/// There is none, it is another program's, or it cannot be removed.
pub(super) fn uninstall(arguments: &Uninstall) -> Result<u8> {
    let folder = arguments.place.kernels()?.join(&arguments.name);
    let Some(spec) = Spec::read(&folder) else {
        return Err(missing(&arguments.name, &folder));
    };
    if !arguments.force {
        refuse_foreign(Some(&spec), "add --force to remove it all the same")?;
    }
    // Of a link only the link goes.
    let removed = if folder.is_symlink() { fs::remove_file(&folder) } else { fs::remove_dir_all(&folder) };
    removed.map_err(|e| Error::io("remove", &folder, e))?;
    let terminal = Terminal::new(TerminalOptions::default());
    say(&terminal, format!("removed the kernel {} from {}", arguments.name, folder.display()));
    Ok(0)
}

/// Where Jupyter finds kernels of this program.
fn status(terminal: &Terminal) {
    let specs: Vec<Spec> = places::all().iter().flat_map(|kernels| Spec::in_folder(kernels)).collect();
    let specs: Vec<&Spec> = specs.iter().filter(|spec| spec.is_ours()).collect();
    if specs.is_empty() {
        say(terminal, "Jupyter finds no loralab kernel".to_owned());
        terminal.emit(Event::Next(vec!["loralab install --user".to_owned()]));
        return;
    }
    let row = |spec: &&Spec| {
        let program = spec.program();
        let state = if program.is_some() { "ready" } else { "program missing" };
        let program = program.map_or_else(|| spec.argument().to_owned(), |path| path.display().to_string());
        [spec.name(), spec.display_name(), &spec.folder().to_string_lossy(), &program, state].map(Cell::from).to_vec()
    };
    let columns = vec!["name", "shown as", "kernelspec", "program", "state"];
    let is_whole = specs.iter().all(|spec| spec.program().is_some());
    let note = if is_whole { "" } else { "`loralab install` puts this program in the place of a missing one" };
    let rows = specs.iter().map(row).collect();
    terminal.emit(Event::Table(Table { columns, rows, note: note.to_owned(), ..Table::default() }));
    terminal.finish();
}

fn say(terminal: &Terminal, text: String) {
    terminal.emit(Event::Text(text));
    terminal.finish();
}

fn refuse_foreign(spec: Option<&Spec>, hint: &str) -> Result<()> {
    match spec.filter(|spec| !spec.is_ours()) {
        Some(spec) => {
            let message =
                format!("{} holds the kernel \"{}\" of another program", spec.folder().display(), spec.display_name());
            Err(Error::usage(message).hint(hint))
        }
        None => Ok(()),
    }
}

/// The error of a kernel that is not in `folder`, with the place where one of that name is.
fn missing(name: &str, folder: &Path) -> Error {
    let error =
        Error::not_found(format!("there is no kernel {name} in {}", folder.parent().unwrap_or(folder).display()));
    let elsewhere = places::all().into_iter().find(|kernels| Spec::read(&kernels.join(name)).is_some());
    match elsewhere.as_deref().and_then(places::prefix_of) {
        Some(prefix) => error.hint(format!("loralab uninstall --name {name} --prefix {}", prefix.display())),
        None => error.hint("loralab install --status lists those there are"),
    }
}

/// The file of this process.
fn program() -> Result<PathBuf> {
    let path = std::env::current_exe().map_err(|e| Error::io("find", Path::new(spec::NAME), e))?;
    if path.is_file() {
        return Ok(path);
    }
    let error = Error::not_found(format!("this program is no longer at {}", path.display()));
    Err(error.hint("run `install` with the program that is to be the kernel"))
}
