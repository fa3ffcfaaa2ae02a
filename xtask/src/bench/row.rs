//! What a row of the benchmark is, what may be promised of it, and how a measured row is judged.
//!
//! Ratios and sizes pass or fail. Absolute times depend on what else the machine does: they are
//! shown with its load and fail only at three times the figure.

use serde_json::{Value, json};

use super::statistics::{Estimate, estimate};

/// Widest interval, as a part of the median, with which a row is decided.
const WIDTH_MAX: f64 = 0.10;
/// An absolute time fails above this many times its figure.
pub const TIME_SLACK: f64 = 3.0;

/// One measured quantity and what is promised of it.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Name on the command line and in the table; `subject/detail`.
    pub name: &'static str,
    /// What is measured.
    pub what: &'static str,
    /// What it is compared with in the same run; empty where it stands alone.
    pub reference: &'static str,
    /// Unit of the measured values.
    pub unit: Unit,
    /// What is promised.
    pub limit: Limit,
    /// Pairs to measure; more, up to four times as many, while the interval is too wide.
    pub pairs: usize,
}

/// Unit of a measured value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds; shown as s, ms or µs.
    Seconds,
    /// Events per second.
    PerSecond,
    /// Bytes; shown as MiB or KiB.
    Bytes,
}

/// What is promised of a row. `floor` is what must hold, `goal` what is aimed at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// Ours divided by the reference is at least this.
    RatioAtLeast { floor: f64, goal: f64 },
    /// Ours divided by the reference is at most this.
    RatioAtMost { floor: f64, goal: f64 },
    /// A quantity that does not depend on the machine's load, such as memory, is at most this.
    AtMost(f64),
    /// An absolute time; fails only at three times this.
    Time(f64),
    /// At most this is aimed at, and nothing has to hold.
    Goal(f64),
    /// Shown only.
    Shown,
}

/// What is said of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The goal is reached, or the only limit.
    Pass,
    /// The floor holds, the goal is not reached.
    Floor,
    /// The goal is not reached, and there is no floor.
    Missed,
    /// The floor does not hold.
    Fail,
    /// The interval is too wide to tell the value, and all of it keeps the floor.
    Holds,
    /// The interval is too wide to tell.
    NotDecided,
    /// Nothing is promised.
    Shown,
}

impl Verdict {
    /// The word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Floor => "pass, goal not reached",
            Self::Missed => "goal not reached",
            Self::Fail => "FAIL",
            Self::Holds => "not decided; its whole interval keeps the floor",
            Self::NotDecided => "not decided",
            Self::Shown => "shown",
        }
    }
}

/// The values of one pair.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// What is promised something of.
    pub ours: f64,
    /// What it is compared with.
    pub reference: Option<f64>,
}

/// A row with what was measured.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The row.
    pub row: Row,
    /// Ours, over the pairs.
    pub ours: Estimate,
    /// The reference, over the pairs.
    pub reference: Option<Estimate>,
    /// Ours divided by the reference, pair by pair.
    pub ratio: Option<Estimate>,
    /// How many pairs.
    pub pairs: usize,
    /// How it was set up: store, transport, volume mode.
    pub conditions: String,
    /// Load of the machine before and after, one minute's mean.
    pub load: (f64, f64),
    /// What ours is made of, where that is told; medians.
    pub parts: Vec<(String, f64)>,
}

impl Measured {
    /// Puts the pairs of a row together; there is at least one.
    pub fn of(row: Row, pairs: &[Pair], conditions: String, load: (f64, f64)) -> Self {
        let all = |value: fn(&Pair) -> Option<f64>| -> Option<Estimate> {
            let values: Option<Vec<f64>> = pairs.iter().map(value).collect();
            values.map(|values| estimate(&values))
        };
        let ours: Vec<f64> = pairs.iter().map(|pair| pair.ours).collect();
        Self {
            row,
            ours: estimate(&ours),
            reference: all(|pair| pair.reference),
            ratio: all(|pair| Some(pair.ours / pair.reference?)),
            pairs: pairs.len(),
            conditions,
            load,
            parts: Vec::new(),
        }
    }

    /// The value that is judged.
    pub fn judged(&self) -> Estimate {
        self.ratio.unwrap_or(self.ours)
    }

    /// Whether the interval is too wide to say anything.
    pub fn is_wide(&self) -> bool {
        self.judged().width() > WIDTH_MAX
    }

    /// Whether more pairs would help: the interval is wide, or lies on both sides of a floor.
    pub fn is_open(&self) -> bool {
        let Estimate { low, high, .. } = self.judged();
        let is_astride = match self.row.limit {
            Limit::RatioAtLeast { floor, .. } | Limit::RatioAtMost { floor, .. } => {
                low < floor && floor < high
            }
            _ => false,
        };
        self.is_wide() || is_astride
    }

    /// What is to be said of it.
    pub fn verdict(&self) -> Verdict {
        let Estimate { low, median, high } = self.judged();
        let keeps = |value: f64| match self.row.limit {
            Limit::RatioAtLeast { floor, goal } => (value >= floor, value >= goal),
            Limit::RatioAtMost { floor, goal } => (value <= floor, value <= goal),
            Limit::AtMost(most) => (value <= most, value <= most),
            Limit::Goal(figure) => (true, value <= figure),
            Limit::Time(_) | Limit::Shown => (true, true),
        };
        let (is_floor, is_goal) = keeps(median);
        match self.row.limit {
            Limit::Shown => return Verdict::Shown,
            // Three times the figure is far enough for any interval.
            Limit::Time(figure) if median > figure * TIME_SLACK => return Verdict::Fail,
            Limit::Time(figure) => return time_verdict(median, figure),
            Limit::Goal(_) if !is_goal && !self.is_wide() => return Verdict::Missed,
            Limit::Goal(_) if self.is_wide() => return Verdict::NotDecided,
            _ => {}
        }
        match (self.is_wide(), is_floor, is_goal) {
            (true, _, _) if keeps(low).0 && keeps(high).0 => Verdict::Holds,
            (true, _, _) => Verdict::NotDecided,
            (_, false, _) => Verdict::Fail,
            (_, true, false) => Verdict::Floor,
            (_, true, true) => Verdict::Pass,
        }
    }

    /// For the file of results; [`Measured::from_json`] reads it.
    pub fn to_json(&self) -> Value {
        let three = |e: Estimate| json!([e.low, e.median, e.high]);
        json!({
            "ours": three(self.ours),
            "reference": self.reference.map(three),
            "ratio": self.ratio.map(three),
            "pairs": self.pairs,
            "conditions": self.conditions,
            "load": [self.load.0, self.load.1],
            "parts": self.parts,
        })
    }

    /// What [`Measured::to_json`] wrote of this row; `None` when it is something else.
    pub fn from_json(row: Row, value: &Value) -> Option<Self> {
        let three = |value: &Value| {
            Some(Estimate {
                low: value.get(0)?.as_f64()?,
                median: value.get(1)?.as_f64()?,
                high: value.get(2)?.as_f64()?,
            })
        };
        Some(Self {
            row,
            ours: three(&value["ours"])?,
            reference: three(&value["reference"]),
            ratio: three(&value["ratio"]),
            pairs: usize::try_from(value["pairs"].as_u64()?).ok()?,
            conditions: value["conditions"].as_str()?.to_owned(),
            load: (value["load"][0].as_f64()?, value["load"][1].as_f64()?),
            parts: serde_json::from_value(value["parts"].clone()).unwrap_or_default(),
        })
    }
}

/// A time above its figure is no failure on a shared machine, and no pass either.
fn time_verdict(median: f64, figure: f64) -> Verdict {
    match median <= figure {
        true => Verdict::Pass,
        false => Verdict::NotDecided,
    }
}

impl Limit {
    /// Floor and goal in words.
    pub fn words(self, unit: Unit) -> (String, String) {
        let none = || "-".to_owned();
        match self {
            Self::RatioAtLeast { floor, goal } => (format!("≥ {floor:.3}"), format!("≥ {goal:.3}")),
            Self::RatioAtMost { floor, goal } => (format!("≤ {floor:.2}"), format!("≤ {goal:.2}")),
            Self::AtMost(most) => (format!("≤ {}", unit.show(most)), none()),
            Self::Goal(figure) => (none(), format!("≤ {}", unit.show(figure))),
            Self::Time(figure) => (
                format!("≤ {}", unit.show(figure * TIME_SLACK)),
                format!("≤ {}", unit.show(figure)),
            ),
            Self::Shown => (none(), none()),
        }
    }
}

impl Unit {
    /// A value for people.
    pub fn show(self, value: f64) -> String {
        const KIB: f64 = 1024.0;
        match self {
            Self::Seconds if value >= 1.0 => format!("{value:.2} s"),
            Self::Seconds if value >= 1e-3 => format!("{:.2} ms", value * 1e3),
            Self::Seconds => format!("{:.1} µs", value * 1e6),
            Self::PerSecond if value >= 100.0 => format!("{value:.0}/s"),
            Self::PerSecond => format!("{value:.1}/s"),
            Self::Bytes if value.abs() >= KIB * KIB => format!("{:.1} MiB", value / KIB / KIB),
            Self::Bytes => format!("{:.1} KiB", value / KIB),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(limit: Limit) -> Row {
        Row {
            name: "subject/row",
            what: "",
            reference: "",
            unit: Unit::Seconds,
            limit,
            pairs: 3,
        }
    }

    fn judge(limit: Limit, ours: &[f64], reference: Option<f64>) -> Verdict {
        let pairs: Vec<Pair> = ours.iter().map(|&ours| Pair { ours, reference }).collect();
        Measured::of(row(limit), &pairs, String::new(), (0.0, 0.0)).verdict()
    }

    #[test]
    fn a_ratio_is_judged_by_floor_goal_and_width() {
        let limit = Limit::RatioAtLeast {
            floor: 0.5,
            goal: 0.9,
        };
        assert_eq!(judge(limit, &[1.0, 0.99, 1.01], Some(1.0)), Verdict::Pass);
        assert_eq!(judge(limit, &[0.6, 0.6, 0.6], Some(1.0)), Verdict::Floor);
        assert_eq!(judge(limit, &[0.4, 0.4, 0.4], Some(1.0)), Verdict::Fail);
        let wide = judge(limit, &[0.6, 0.8, 1.0], Some(1.0));
        assert_eq!(wide, Verdict::Holds, "all of it is above the floor");
        let wide = judge(limit, &[0.4, 0.8, 1.0], Some(1.0));
        assert_eq!(wide, Verdict::NotDecided);
        let most = Limit::RatioAtMost {
            floor: 2.0,
            goal: 1.2,
        };
        assert_eq!(judge(most, &[3.0, 3.0, 3.0], Some(2.0)), Verdict::Floor);
        assert_eq!(judge(most, &[3.0, 3.0, 3.0], Some(1.0)), Verdict::Fail);
    }

    #[test]
    fn a_time_fails_at_three_times_its_figure_only() {
        assert_eq!(judge(Limit::Time(1.0), &[0.9], None), Verdict::Pass);
        assert_eq!(judge(Limit::Time(1.0), &[2.9], None), Verdict::NotDecided);
        assert_eq!(judge(Limit::Time(1.0), &[3.1], None), Verdict::Fail);
        assert_eq!(judge(Limit::AtMost(1.0), &[1.1], None), Verdict::Fail);
    }

    #[test]
    fn a_goal_alone_is_reached_or_missed_and_never_fails() {
        let goal = Limit::Goal(1.0);
        assert_eq!(judge(goal, &[1.0, 0.99, 1.0], None), Verdict::Pass);
        assert_eq!(judge(goal, &[9.0, 9.0, 9.0], None), Verdict::Missed);
        assert_eq!(judge(goal, &[0.8, 1.1, 1.2], None), Verdict::NotDecided);
    }

    #[test]
    fn results_survive_their_file() {
        let pairs = [Pair {
            ours: 1.5,
            reference: Some(3.0),
        }];
        let mut before = Measured::of(row(Limit::Shown), &pairs, "SQLite".to_owned(), (1.0, 2.0));
        before.parts.push(("step".to_owned(), 0.5));
        let after = Measured::from_json(before.row, &before.to_json()).unwrap();
        assert_eq!(format!("{before:?}"), format!("{after:?}"));
        assert!(Measured::from_json(before.row, &json!({})).is_none());
    }
}
