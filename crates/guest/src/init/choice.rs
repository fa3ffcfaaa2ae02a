//! Which binary the agent is started from: the root's own, or one that came over the link, which is
//! on trial until it has served for a while, and given up for the one before if it does not.
//!
//! No clock and no process: the supervisor tells what happens, and does what this says.

use std::rc::Rc;
use std::time::Instant;

use crate::init::image::Image;
use crate::init::protocol;
use crate::limits;

/// A binary; `None` is the root's own.
pub(super) type Binary = Option<Rc<Image>>;

/// What the supervisor has to do about the running agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Stays,
    /// It was confirmed, which it may know.
    Confirmed,
    /// It was given up: end it.
    GivenUp,
}

/// A binary that has to prove itself.
#[derive(Debug)]
struct Trial {
    before: Binary,
    /// When it has to serve.
    ready_due: Instant,
    /// When it has served for long enough.
    confirmed_due: Option<Instant>,
}

/// The choice.
#[derive(Debug, Default)]
pub(super) struct Choice {
    current: Binary,
    trial: Option<Trial>,
    failures: u32,
    refused: Option<(String, String)>,
}

impl Choice {
    /// What the next agent is started from.
    pub(super) fn current(&self) -> Binary {
        self.current.clone()
    }

    /// What the agent may know.
    pub(super) fn told(&self) -> protocol::Image {
        protocol::Image {
            is_on_trial: self.trial.is_some(),
            refused: self.refused.clone(),
        }
    }

    /// Whether a binary is on trial: it has to end first.
    pub(super) fn is_on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// Another binary is to be used from the next start on.
    pub(super) fn offer(&mut self, image: Image, now: Instant) {
        let before = self.current.replace(Rc::new(image));
        self.failures = 0;
        self.trial = Some(Trial {
            before,
            ready_due: now + limits::AGENT_READY_MAX,
            confirmed_due: None,
        });
    }

    /// The agent says that it serves.
    pub(super) fn ready(&mut self, now: Instant) {
        if let Some(trial) = &mut self.trial {
            let due = now + limits::AGENT_TRIAL;
            trial.confirmed_due.get_or_insert(due);
        }
    }

    /// The agent ended by itself, in these words, or could not be started.
    pub(super) fn failed(&mut self, has_worked: bool, words: &str) {
        if has_worked && self.trial.is_none() {
            self.failures = 0;
            return;
        }
        self.failures += 1;
        if let Some(trial) = &mut self.trial {
            trial.confirmed_due = None;
        }
        if self.failures >= limits::AGENT_REPLACED_FAILURES_MAX && self.current.is_some() {
            self.give_up(&format!("it {words}, {} times in a row", self.failures));
        }
    }

    /// When something is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let trial = self.trial.as_ref()?;
        Some(trial.confirmed_due.unwrap_or(trial.ready_due))
    }

    /// Decides what is due.
    pub(super) fn decide(&mut self, now: Instant) -> Verdict {
        match &self.trial {
            Some(trial) if trial.confirmed_due.is_some_and(|due| due <= now) => {
                self.trial = None;
                self.failures = 0;
                self.refused = None;
                Verdict::Confirmed
            }
            Some(trial) if trial.confirmed_due.is_none() && trial.ready_due <= now => {
                let seconds = limits::AGENT_READY_MAX.as_secs();
                self.give_up(&format!("it did not serve within {seconds} s"));
                Verdict::GivenUp
            }
            Some(_) | None => Verdict::Stays,
        }
    }

    /// Goes back to the one before; after a trial that went well, to the root's own.
    fn give_up(&mut self, why: &str) {
        let before = self.trial.take().and_then(|trial| trial.before);
        if let Some(given_up) = std::mem::replace(&mut self.current, before) {
            self.refused = Some((given_up.sha256.clone(), why.to_owned()));
        }
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    fn image(sha256: &str) -> Image {
        Image {
            file: crate::init::image::inbox().unwrap(),
            sha256: sha256.to_owned(),
        }
    }

    fn runs(choice: &Choice) -> Option<String> {
        choice.current().map(|image| image.sha256.clone())
    }

    fn refused(choice: &Choice) -> Option<String> {
        choice.told().refused.map(|(sha256, _)| sha256)
    }

    /// One that serves and lives is kept, and the next one goes back to it.
    #[test]
    fn goes_back_to_the_one_that_worked() {
        let (mut choice, start) = (Choice::default(), clock::now());
        choice.offer(image("a"), start);
        assert!(choice.is_on_trial());
        choice.ready(start);
        assert_eq!(choice.decide(start), Verdict::Stays);
        let later = start + limits::AGENT_TRIAL;
        assert_eq!(choice.decide(later), Verdict::Confirmed);
        assert_eq!((runs(&choice), choice.due()), (Some("a".to_owned()), None));

        choice.offer(image("b"), later);
        for _ in 0..limits::AGENT_REPLACED_FAILURES_MAX {
            assert_eq!(runs(&choice).as_deref(), Some("b"));
            choice.failed(false, "exited with code 1");
        }
        assert_eq!(runs(&choice).as_deref(), Some("a"));
        assert_eq!(refused(&choice).as_deref(), Some("b"));
        assert!(!choice.is_on_trial());
    }

    #[test]
    fn gives_up_what_is_silent() {
        let (mut choice, start) = (Choice::default(), clock::now());
        choice.offer(image("a"), start);
        let almost = start + limits::AGENT_READY_MAX - Duration::from_millis(1);
        assert_eq!(choice.decide(almost), Verdict::Stays);
        let due = choice.due().unwrap();
        assert_eq!(choice.decide(due), Verdict::GivenUp);
        assert_eq!((runs(&choice), choice.due()), (None, None));
        assert_eq!(refused(&choice).as_deref(), Some("a"));
    }

    /// What says that it serves and dies before it is believed has not served.
    #[test]
    fn is_not_deceived_by_one_that_serves_for_a_moment() {
        let (mut choice, start) = (Choice::default(), clock::now());
        choice.offer(image("a"), start);
        choice.ready(start);
        choice.failed(true, "was ended by SIGSEGV");
        assert_eq!(choice.decide(start + limits::AGENT_TRIAL), Verdict::Stays);
        assert_eq!(choice.due(), Some(start + limits::AGENT_READY_MAX));
    }

    /// One that worked and later does not any more is given up for the root's own, whose failures
    /// change nothing.
    #[test]
    fn falls_back_to_the_roots_own() {
        let (mut choice, start) = (Choice::default(), clock::now());
        choice.offer(image("a"), start);
        choice.ready(start);
        choice.decide(start + limits::AGENT_TRIAL);
        choice.failed(false, "exited with code 1");
        choice.failed(true, "was ended by SIGKILL");
        for _ in 0..limits::AGENT_REPLACED_FAILURES_MAX {
            assert_eq!(runs(&choice).as_deref(), Some("a"));
            choice.failed(false, "exited with code 1");
        }
        assert_eq!(runs(&choice), None);
        for _ in 0..10 {
            choice.failed(false, "exited with code 1");
        }
        assert_eq!((runs(&choice), refused(&choice)), (None, Some("a".into())));
    }
}
