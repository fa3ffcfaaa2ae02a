//! What the creating of an instance is made of: the steps of its task, from the store's history.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::Program;

/// Prints each line of the history with its time since the task was written; unit: microseconds.
const HISTORY: &str = "
import json, sqlite3, sys
db = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True)
sql = '''SELECT s.step, s.at - t.created_at FROM task_steps s JOIN tasks t ON t.id = s.task_id
    WHERE t.instance_id = ? AND t.workflow = 'create_instance' ORDER BY s.version'''
print(json.dumps(db.execute(sql, [sys.argv[2]]).fetchall()))
";

/// What is left of the whole time.
const REST: &str = "the request, and the first query";

/// The steps by which an instance was created, with their seconds, waits included; `whole` is the
/// time from the request to the first answer, and the last of them what is left of it.
pub fn of(database: &Path, instance_id: &str, whole: f64) -> Result<Vec<(String, f64)>> {
    let file = database.display().to_string();
    let text = Program::new("python3", &["-c", HISTORY, &file, instance_id]).output()?;
    parts(&text, whole)
}

fn parts(text: &str, whole: f64) -> Result<Vec<(String, f64)>> {
    let lines: Vec<(String, f64)> = serde_json::from_str(text).context("read the steps")?;
    let mut parts: Vec<(String, f64)> = Vec::new();
    let mut before = 0.0;
    for (step, micros) in lines {
        let (step, at) = (name(&step), micros / 1e6);
        match parts.iter_mut().find(|(known, _)| *known == step) {
            Some((_, seconds)) => *seconds += at - before,
            None => parts.push((step, at - before)),
        }
        before = at;
    }
    parts.push((REST.to_owned(), whole - before));
    Ok(parts)
}

/// A step's name; the store has it with what the step was given.
fn name(step: &str) -> String {
    let value: Value = serde_json::from_str(step).unwrap_or_default();
    value["step"].as_str().unwrap_or(step).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_step_that_ran_twice_are_added_up() {
        let text = r#"[["{\"step\":\"a\"}", 1000], ["{\"step\":\"b\",\"version\":1}", 3000],
            ["{\"step\":\"b\",\"version\":1}", 4000], ["c", 4500]]"#;
        let found = parts(text, 0.005).unwrap();
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", REST]);
        let micros: Vec<_> = found.iter().map(|(_, s)| (s * 1e6).round()).collect();
        assert_eq!(micros, [1000.0, 3000.0, 500.0, 500.0]);
    }
}
