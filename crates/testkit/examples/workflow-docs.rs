//! Prints `docs/workflows/*.md`: each workflow's steps, from its enum, and which step follows
//! which, from simulated runs of every way through it. `cargo xtask docs` writes the files.
//!
//! Before each file stands a line with a form feed and its path.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use coffer_control::workflow::{self, AnyWorkflow, StepInfo};
use coffer_testkit::chaos::step_name;
use coffer_testkit::scenario::Scenario;
use coffer_testkit::seeds;

fn main() -> Result<(), String> {
    for workflow in workflow::registry() {
        println!("\u{c}docs/workflows/{}.md", workflow.name());
        print!("{}", page(*workflow)?);
    }
    Ok(())
}

fn page(workflow: &dyn AnyWorkflow) -> Result<String, String> {
    let name = workflow.name();
    let file = format!("../control/src/workflow/{name}.rs");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let source = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut text = format!("# {name}\n\n");
    for line in source.lines().take_while(|line| line.starts_with("//!")) {
        let _ = writeln!(text, "{}", line.trim_start_matches("//!").trim());
    }
    text.push_str(
        "\nWritten by `cargo xtask docs` from the workflow's steps and simulated runs.\n\n",
    );
    text.push_str("| step | then holds | given up after |\n| --- | --- | --- |\n");
    for step in workflow.steps() {
        let step_name = step_name(&step.stored);
        let meaning = meaning(&source, &step_name);
        let _ = writeln!(text, "| `{step_name}` | {meaning} | {} |", patience(&step));
    }
    text.push_str("\n```mermaid\nstateDiagram-v2\n");
    for edge in edges(workflow)? {
        let _ = writeln!(text, "    {edge}");
    }
    text.push_str("```\n");
    Ok(text)
}

fn patience(step: &StepInfo) -> String {
    match (step.policy.deadline_seconds, step.policy.retries) {
        (Some(seconds), Some(tries)) => format!("{seconds} s or {tries} failed tries"),
        (Some(seconds), None) => format!("{seconds} s"),
        (None, Some(tries)) => format!("{tries} failed tries"),
        (None, None) => "never".to_owned(),
    }
}

/// The comment of the variant whose stored name this is.
fn meaning(source: &str, step: &str) -> String {
    let variant: String = step.split('_').map(capital).collect();
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let is_variant = |line: &&str| {
        let rest = line.strip_prefix(variant.as_str());
        rest.is_some_and(|rest| rest == "," || rest == " {")
    };
    let at = lines.iter().position(is_variant).unwrap_or(0);
    let above = lines[..at].iter().rev();
    let mut words: Vec<&str> = above.map_while(|line| line.strip_prefix("/// ")).collect();
    words.reverse();
    words.join(" ")
}

fn capital(word: &str) -> String {
    let (first, rest) = word.split_at(word.len().min(1));
    first.to_uppercase() + rest
}

/// Which step follows which, in the order of the story.
fn edges(workflow: &dyn AnyWorkflow) -> Result<Vec<String>, String> {
    let steps = workflow.steps();
    let order: Vec<String> = steps.iter().map(|step| step_name(&step.stored)).collect();
    let place = |name: &str| {
        order
            .iter()
            .position(|step| step == name)
            .unwrap_or(usize::MAX)
    };
    let is_undo = |from: &str, to: &str| {
        let undo = steps.get(place(from)).and_then(|step| step.undo.as_deref());
        undo.is_some_and(|undo| step_name(undo) == to)
    };
    let runtime = seeds::runtime();
    let (mut follows, mut ends) = (BTreeSet::new(), BTreeSet::new());
    for scenario in Scenario::ALL {
        if scenario.workflow() == workflow.name() {
            let path = runtime.block_on(scenario.path())?;
            let pairs = path.edges.into_iter();
            let pairs = pairs.map(|(from, to)| (place(&from), place(&to), from, to));
            follows.extend(pairs.filter(|(_, _, from, to)| !is_undo(from, to)));
            ends.extend(path.ends);
        }
    }
    let mut text = vec![format!("[*] --> {}", order.first().ok_or("no step")?)];
    text.extend(
        follows
            .iter()
            .map(|(_, _, from, to)| format!("{from} --> {to}")),
    );
    for step in &steps {
        if let Some(undo) = &step.undo {
            let (from, to) = (step_name(&step.stored), step_name(undo));
            text.push(format!("{from} --> {to}: given up"));
        }
    }
    text.extend(
        ends.iter()
            .map(|(step, outcome)| format!("{step} --> [*]: {outcome}")),
    );
    Ok(text)
}
