//! A command in a terminal, with somebody at the keyboard.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use crate::eventually::eventually;
use crate::process::Process;

/// A process that has a terminal of its own.
#[derive(Debug)]
pub struct Terminal {
    process: Process,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    device: String,
}

impl Terminal {
    /// Takes over the near end of a terminal whose far end is `device`, where `process` runs.
    pub(crate) fn new(process: Process, near: File, device: String) -> Terminal {
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (seen, mut output) = (screen.clone(), near.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // Ends with an error once the last process has closed the far end.
            while let Ok(length @ 1..) = output.read(&mut piece) {
                seen.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        });
        Terminal {
            process,
            keyboard: near,
            screen,
            device,
        }
    }

    /// Types: bytes as a keyboard sends them, `\r` for enter, `\x04` for Ctrl-D.
    pub fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Everything that was ever on the screen.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// Waits until `text` has been on the screen, and gives back everything that was.
    pub async fn shows(&self, text: &str) -> String {
        eventually(&format!("the screen shows {text:?}"), async || {
            let screen = self.screen();
            if screen.contains(text) {
                Ok(screen)
            } else {
                Err(screen)
            }
        })
        .await
    }

    /// Makes the window another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        set_size(&self.device, columns, rows);
    }

    /// The terminal's modes, as `stty -a` prints them.
    pub fn modes(&self) -> String {
        stty(&self.device, &["-a"])
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Sets the size of the terminal `device`.
pub(crate) fn set_size(device: &str, columns: u16, rows: u16) {
    stty(device, &["cols", &columns.to_string(), "rows", &rows.to_string()]);
}

fn stty(device: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new("stty")
        .args(["-F", device])
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
