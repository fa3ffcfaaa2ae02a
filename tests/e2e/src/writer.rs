//! A client that writes without pause and notes every write that was acknowledged, and when.

use std::io::{BufRead, BufReader, Write};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::engine::Served;
use crate::run::{now, random_pause};

/// Between two writes: load, and not the measure of it.
const PACE: Duration = Duration::from_millis(10);
/// How long a client waits for an answer: its server may be gone without a word.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// How far apart the death of an engine and the note of it are.
const NOTE_MAX: Duration = Duration::from_secs(1);

/// What was acknowledged, and when.
type Notes = Arc<Mutex<Vec<(u64, Instant)>>>;

/// Writes in the background until it is dropped.
#[derive(Debug)]
pub struct Writer {
    db: Served,
    notes: Notes,
    deaths: Mutex<Vec<Instant>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Makes its table and begins.
    pub fn start(db: &Served) -> Result<Self> {
        db.begin()?;
        let notes = Notes::default();
        let is_over = Arc::new(AtomicBool::new(false));
        let (client, own, over) = (db.clone(), Arc::clone(&notes), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || write_on(&client, &own, &over));
        Ok(Self {
            db: db.clone(),
            notes,
            deaths: Mutex::default(),
            is_over,
            thread: Some(thread),
        })
    }

    /// Notes that the engine has just been killed.
    pub fn engine_died(&self) {
        let mut deaths = self.deaths.lock().unwrap_or_else(PoisonError::into_inner);
        deaths.push(now());
    }

    fn acknowledged(&self) -> Vec<(u64, Instant)> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.clone()
    }

    /// How many writes were acknowledged so far.
    pub fn count(&self) -> usize {
        self.acknowledged().len()
    }

    /// Every acknowledged write is there, but for what the engine may lose when it is killed.
    pub fn verify(&self) -> Result<()> {
        let noted = self.acknowledged();
        let kept = self.db.kept()?;
        let deaths = self.deaths.lock().unwrap_or_else(PoisonError::into_inner);
        let loss_max = self.db.kind.loss_max();
        let may_lose = |at: Instant| {
            let near = |death: &Instant| at + loss_max >= *death && at <= *death + NOTE_MAX;
            !loss_max.is_zero() && deaths.iter().any(near)
        };
        let lost = noted
            .iter()
            .filter(|(n, at)| !kept.contains(n) && !may_lose(*at));
        let lost: Vec<_> = lost.map(|(n, _)| n).collect();
        let name = self.db.kind.name();
        ensure!(lost.is_empty(), "{name}: acknowledged and lost: {lost:?}");
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the writer panicked");
        }
    }
}

fn write_on(db: &Served, notes: &Notes, is_over: &AtomicBool) {
    let mut next = 1;
    while !is_over.load(Ordering::Relaxed) {
        let Ok(mut client) = db.start_client() else {
            continue;
        };
        // A refused or broken connection is what the kills are for.
        converse(db, &mut client, &mut next, notes, is_over).ok();
        client.kill().ok();
        client.wait().ok();
        // Whether the last one was committed is not known: it is not written again.
        next += 1;
        random_pause(PACE).ok();
    }
}

fn converse(
    db: &Served,
    client: &mut Child,
    next: &mut u64,
    notes: &Notes,
    is_over: &AtomicBool,
) -> Result<()> {
    let mut ask = client.stdin.take().context("no standard input")?;
    let answers = answers(client)?;
    while !is_over.load(Ordering::Relaxed) {
        writeln!(ask, "{}", db.line(*next))?;
        let answer = answers.recv_timeout(ANSWER_MAX)?;
        ensure!(db.is_acknowledged(*next, answer.trim()), "{answer}");
        let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push((*next, now()));
        drop(notes);
        *next += 1;
        random_pause(PACE)?;
    }
    Ok(())
}

/// Lines of a client, which end with it.
fn answers(client: &mut Child) -> Result<Receiver<String>> {
    let output = client.stdout.take().context("no output")?;
    let (say, answers) = channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(output).lines();
        for line in lines.map_while(std::result::Result::ok) {
            if say.send(line).is_err() {
                break;
            }
        }
    });
    Ok(answers)
}
