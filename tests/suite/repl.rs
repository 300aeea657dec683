//! The prompt as its user has it: the program behind a pseudo-terminal.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything here takes, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_R: &str = "\x12";
const UP: &str = "\x1b[A";
const RIGHT: &str = "\x1b[C";

/// A home and a place for runs, removed at the end.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("loralab-repl-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program at a terminal.
struct Screen {
    child: Child,
    keys: File,
    shown: Arc<(Mutex<Shown>, Condvar)>,
    /// How much of the text has been looked at.
    seen: usize,
}

#[derive(Default)]
struct Shown {
    bytes: Vec<u8>,
    ended: bool,
}

impl Screen {
    fn open(home: &Home, columns: u16, variables: &[(&str, &str)]) -> Self {
        let (master, slave) = pty(columns, 50);
        let tty = || Stdio::from(slave.try_clone().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_loralab"));
        command.env_clear().env("HOME", &home.0).env("LORALAB_RUNS", home.0.join("runs"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("TERM", "xterm-256color");
        command.current_dir(&home.0).envs(variables.iter().copied()).stdin(tty()).stdout(tty()).stderr(tty());
        // SAFETY: between fork and exec only these two system calls are made.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        // The command holds copies of the terminal, whose end is only seen when all are closed.
        drop((command, slave));
        let shown = Arc::new((Mutex::new(Shown::default()), Condvar::new()));
        let (mut reader, writer) = (File::from(master.try_clone().unwrap()), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                let read = reader.read(&mut bytes).unwrap_or(0);
                let mut shown = writer.0.lock().unwrap();
                shown.bytes.extend_from_slice(&bytes[..read]);
                shown.ended = read == 0;
                writer.1.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        let mut screen = Self { child, keys: File::from(master), shown, seen: 0 };
        screen.expect("load demo\r\n");
        screen.expect("lora> ");
        screen
    }

    fn raw(&self) -> String {
        String::from_utf8_lossy(&self.shown.0.lock().unwrap().bytes).into_owned()
    }

    /// Everything shown so far, without escape sequences.
    fn text(&self) -> String {
        plain(&self.raw())
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    fn enter(&mut self, line: &str) {
        self.press(&format!("{line}\r"));
    }

    /// Waits until `wanted` has been shown behind what was looked at before.
    #[track_caller]
    fn expect(&mut self, wanted: &str) {
        let start = Instant::now();
        loop {
            let text = self.text();
            if let Some(at) = text[self.seen..].find(wanted) {
                self.seen += at + wanted.len();
                return;
            }
            let shown = self.shown.0.lock().unwrap();
            assert!(!shown.ended && start.elapsed() < PATIENCE, "no {wanted:?} behind {:?}", &text[self.seen..]);
            drop(self.shown.1.wait_timeout(shown, Duration::from_millis(50)).unwrap());
        }
    }

    /// Waits for the next prompt: keys that come before it are lines to the terminal. Redrawn ones follow no line break.
    #[track_caller]
    fn prompt(&mut self) {
        self.expect("\n\rlora");
    }

    /// Waits for the end of the program; its code.
    #[track_caller]
    fn end(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(start.elapsed() < PATIENCE, "it has not ended: {:?}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Loads the built-in model and trains an adapter a little.
    #[track_caller]
    fn train(&mut self) {
        for (line, shown) in
            [("load demo", "next:"), ("attach-lora r4 --rank 4", "next:"), ("train rows.txt --steps 1", "kept:")]
        {
            self.enter(line);
            self.expect(shown);
        }
        self.expect("lora demo");
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pty(columns: u16, rows: u16) -> (OwnedFd, OwnedFd) {
    let (mut master, mut slave) = (-1, -1);
    let mut size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: openpty fills in the two descriptors, which nobody else owns.
    unsafe {
        let failed =
            libc::openpty(&raw mut master, &raw mut slave, std::ptr::null_mut(), std::ptr::null_mut(), &raw mut size);
        assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
        libc::fcntl(master, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::fcntl(slave, libc::F_SETFD, libc::FD_CLOEXEC);
        (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
    }
}

/// `text` without escape sequences.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars().peekable();
    while let Some(c) = letters.next() {
        if c != '\x1b' {
            out.push(c);
        } else if letters.next_if_eq(&'[').is_some() {
            while letters.next().is_some_and(|c| !c.is_ascii_alphabetic()) {}
        }
    }
    out
}

/// The lines that were printed, redrawn ones by themselves.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\n', '\r'])
}

fn settings(screen: &Screen) -> libc::termios {
    // SAFETY: all zeros is a valid termios, which tcgetattr fills in.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(screen.keys.as_raw_fd(), &raw mut settings), 0);
        settings
    }
}

#[test]
fn tab_lists_names_with_what_they_are() {
    let home = Home::new("list");
    let mut screen = Screen::open(&home, 80, &[]);
    screen.press("load\t");
    screen.expect("load          Load a base model");
    screen.expect("load-adapter  Load an adapter");
    screen.press("\x15train x --sched\t");
    screen.expect("train x --schedule ");
    assert!(screen.raw().contains("\x1b[2mLoad a base model"), "{:?}", screen.raw());
}

#[test]
fn a_hint_is_taken_with_the_right_arrow() {
    let home = Home::new("hint");
    let mut screen = Screen::open(&home, 80, &[]);
    screen.press("versi");
    screen.expect("version");
    screen.press(RIGHT);
    screen.press("\r");
    screen.expect("loralab 0.");
    // The history comes before the commands.
    screen.prompt();
    screen.enter("verbose = 3");
    screen.prompt();
    screen.press("ver");
    screen.expect("bose = 3");
}

#[test]
fn half_finished_cells_go_on_and_an_empty_line_ends_them() {
    let home = Home::new("lines");
    let mut screen = Screen::open(&home, 80, &[]);
    screen.enter("for word in (one two):");
    screen.enter("echo <$word>");
    screen.enter("");
    screen.expect("\n<one>");
    screen.expect("\n<two>");
    screen.enter("echo \"open");
    screen.enter("end\"");
    screen.expect("\nopen\r\nend");
    screen.enter("echo (a b");
    screen.enter("");
    screen.expect("is never closed");
    screen.expect("lora> ");
    screen.enter("%%data rows");
    screen.enter("a line");
    screen.enter("");
    screen.enter("another");
    screen.enter("%%");
    screen.expect("data set rows:");
}

#[test]
fn pasted_prompts_are_left_out() {
    let home = Home::new("paste");
    let mut screen = Screen::open(&home, 80, &[]);
    screen.enter("\x1b[200~lora> echo one\none\nlora demo·nf4 +r16 ❯ echo two\x1b[201~");
    screen.expect("\none\r\ntwo\r\n");
}

#[test]
fn the_history_outlives_the_session() {
    let home = Home::new("history");
    let mut screen = Screen::open(&home, 80, &[]);
    screen.enter("echo first thing");
    screen.expect("\nfirst thing");
    screen.enter("version");
    screen.expect("loralab 0.");
    screen.enter("exit");
    assert_eq!(screen.end(), 0);

    let mut screen = Screen::open(&home, 80, &[]);
    screen.press(UP);
    screen.expect("exit");
    screen.press(&format!("{UP}{UP}\r"));
    screen.expect("\nfirst thing");
    screen.prompt();
    // What has been typed is what is searched for.
    screen.press(&format!("ver{UP}\r"));
    screen.expect("loralab 0.");
    screen.prompt();
    screen.press(&format!("{CTRL_R}first"));
    screen.expect("reverse-i-search");
    screen.press("\r");
    screen.expect("\nfirst thing");
    assert!(home.0.join(".local/share/loralab/history").is_file());
}

#[test]
fn help_is_a_question_mark_away() {
    let home = Home::new("help");
    let mut screen = Screen::open(&home, 80, &[]);
    screen.enter("?echo");
    screen.expect("Usage: echo");
    screen.enter("time echo hi");
    screen.expect("\nhi");
    screen.expect("took ");
}

#[test]
fn ctrl_c_clears_the_line_and_stops_the_command_but_never_the_program() {
    let home = Home::new("interrupt");
    home.file("rows.txt", &"a text to learn by heart. ".repeat(400));
    let mut screen = Screen::open(&home, 80, &[]);
    let before = settings(&screen).c_lflag;
    for _ in 0..3 {
        screen.press(&format!("nonsense{CTRL_C}"));
        screen.prompt();
    }
    screen.enter("load demo");
    screen.expect("next:");
    screen.enter("attach-lora r4 --rank 4");
    screen.expect("next:");
    screen.enter("train rows.txt --steps 1000000");
    screen.expect("3/1,000,000");
    screen.press(CTRL_C);
    screen.expect("interrupted");
    screen.prompt();
    screen.enter("echo still here");
    screen.expect("\nstill here");
    screen.enter("!sleep 1000");
    std::thread::sleep(Duration::from_millis(300));
    screen.press(CTRL_C);
    screen.expect("interrupted");
    screen.prompt();
    assert_eq!(settings(&screen).c_lflag, before);
    assert!(!screen.text().contains("no command nonsense"));
}

#[test]
fn leaving_asks_when_something_is_not_saved() {
    let home = Home::new("leave");
    home.file("rows.txt", "some words to learn\n");
    let mut screen = Screen::open(&home, 80, &[]);
    screen.train();
    screen.press(CTRL_D);
    screen.expect("r4 is not saved (its run keeps a copy on disk). Leave? [y/N] ");
    screen.enter("n");
    screen.prompt();
    screen.enter("exit");
    screen.expect("Leave? [y/N] ");
    screen.press(CTRL_C);
    screen.prompt();
    screen.press(CTRL_D);
    screen.expect("Leave? [y/N] ");
    screen.enter("y");
    assert_eq!(screen.end(), 0);
}

#[test]
fn leaving_does_not_ask_when_nothing_is_lost() {
    let home = Home::new("saved");
    home.file("rows.txt", "some words to learn\n");
    let mut screen = Screen::open(&home, 80, &[]);
    screen.train();
    screen.enter("save-adapter r4 kept");
    screen.prompt();
    screen.press(CTRL_D);
    assert_eq!(screen.end(), 0);
    assert!(Path::new(&home.0.join("kept/adapter_config.json")).is_file());
    assert!(!screen.text().contains("Leave?"));
}

#[test]
fn without_colours_there_are_none() {
    let home = Home::new("plain");
    home.file("rows.txt", "some words to learn\n");
    let mut screen = Screen::open(&home, 80, &[("NO_COLOR", "1"), ("KITTY_WINDOW_ID", "1")]);
    screen.train();
    screen.enter("trian");
    screen.expect("did you mean train?");
    screen.enter("plot");
    screen.expect("step");
    let raw = screen.raw();
    let colours = raw.split("\x1b[").skip(1).filter(|rest| {
        rest.find(|c: char| c.is_ascii_alphabetic()).is_some_and(|end| rest[end..].starts_with('m') && end > 0)
    });
    assert_eq!(colours.count(), 0, "{raw:?}");
    assert!(!raw.contains("\x1b_G"), "a picture has colours");
}

#[test]
fn a_dumb_terminal_gets_lines_of_ascii() {
    let home = Home::new("dumb");
    home.file("rows.txt", "some words to learn\n");
    let mut screen = Screen::open(&home, 80, &[("TERM", "dumb")]);
    for line in ["load demo", "attach-lora r4 --rank 4", "train rows.txt --steps 2", "memory", "trian"] {
        screen.enter(line);
    }
    screen.expect("did you mean train?");
    screen.expect("lora demo.bf16 +r4 > ");
    screen.enter("echo (a");
    screen.enter("b)");
    screen.expect("\na,b");
    let raw = screen.raw();
    assert!(!raw.contains('\x1b'), "{raw:?}");
    let odd: String = raw.chars().filter(|c| !c.is_ascii()).collect();
    assert!(odd.is_empty(), "{odd:?} in {raw:?}");
}

#[test]
fn nothing_is_wider_than_the_terminal() {
    for columns in [60, 200] {
        let home = Home::new(&format!("width-{columns}"));
        home.file("rows.txt", &"some words to learn\n".repeat(40));
        let mut screen = Screen::open(&home, columns, &[]);
        screen.train();
        for line in [
            "quantize",
            "eval rows.txt",
            "memory",
            "runs",
            "plot",
            "status",
            "doctor",
            "adapters",
            "train rows.xtt",
            "attach-lora x --targets q_prj",
        ] {
            screen.enter(line);
            screen.prompt();
        }
        screen.press("\t");
        screen.expect("leaves");
        screen.enter("echo done");
        screen.expect("\ndone");
        let text = screen.text();
        let wide = lines(&text).filter(|line| line.chars().count() > usize::from(columns));
        assert_eq!(wide.collect::<Vec<_>>(), Vec::<&str>::new(), "{columns}");
    }
}

#[test]
fn charts_are_pictures_where_the_terminal_takes_them() {
    for (variable, begin) in [
        (("KITTY_WINDOW_ID", "1"), "\x1b_Ga=T,f=100"),
        (("TERM_PROGRAM", "iTerm.app"), "\x1b]1337;File=inline=1"),
        (("TERM", "foot"), "\x1bPq\"1;1;700;"),
        (("LORALAB_PLOT", "braille"), "┬"),
        (("LORALAB_PLOT", "ascii"), "------+"),
    ] {
        let home = Home::new(&format!("picture-{}", variable.1));
        home.file("rows.txt", "some words to learn\n");
        let mut screen = Screen::open(&home, 80, &[variable]);
        screen.train();
        assert!(screen.raw().contains(begin), "{variable:?}: {:?}", screen.text());
    }
}

#[test]
fn the_screen_can_be_cleared() {
    let home = Home::new("clear");
    let mut screen = Screen::open(&home, 80, &[]);
    screen.press("echo kept\x0c\r");
    screen.expect("\nkept");
    assert!(screen.raw().contains("\x1b[H\x1b[J"), "{:?}", screen.raw());
}
