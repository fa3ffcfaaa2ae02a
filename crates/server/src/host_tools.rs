//! The operator's tools on Coffer's host: migrate, config, doctor, ca. Engine roots: `images.rs`.

use std::process::ExitCode;

use anyhow::Context;
use coffer_cli::Options;
use coffer_cli::output::emit;
use coffer_control::authority;
use coffer_control::clock::Clock;
use coffer_control::config::Config;
use coffer_control::supervise::Supervisor;
use coffer_infra::local::doctor::{Finding, Level};
use coffer_store::tracker::TrackerView;

use crate::args::{Ca, Place};
use crate::assemble;
use crate::state_dir::StateDir;

/// Opens the store, which brings its schema up to date.
pub(crate) async fn migrate(place: &Place) -> anyhow::Result<ExitCode> {
    let config = place.load()?;
    let state = StateDir::existing(&config.state.dir)?;
    let base = assemble::base(&config, &state).await?;
    base.store.close().await;
    emit("the store is up to date\n")?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the configuration that holds.
pub(crate) fn config(place: &Place) -> anyhow::Result<ExitCode> {
    emit(&place.load()?.render_masked())?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a CA's certificate.
pub(crate) async fn ca(ca: &Ca) -> anyhow::Result<ExitCode> {
    let config = ca.place.load()?;
    let state = StateDir::existing(&config.state.dir)?;
    let base = assemble::base(&config, &state).await?;
    let name = match &ca.project {
        None => authority::API.to_owned(),
        Some(project) => {
            let by_name = base.store.find_tenant_by_name(project).await?;
            let by_id = match project.parse() {
                Ok(id) => base.store.find_tenant(&id).await?,
                Err(_) => None,
            };
            let tenant = by_name
                .or(by_id)
                .with_context(|| format!("no project '{project}'"))?;
            format!("project {}", tenant.id)
        }
    };
    let now = base.clock.now();
    let found = authority::ensure(&base.store, &base.secrets, &name, now).await?;
    emit(&found.cert_pem)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what was found on this host. Fails when something does not work.
pub(crate) async fn doctor(place: &Place, options: &Options) -> anyhow::Result<ExitCode> {
    let config = place.load()?;
    let state = StateDir::existing(&config.state.dir)?;
    let local = assemble::local_config(&config, &state)?;
    let mut findings =
        tokio::task::spawn_blocking(move || coffer_infra::local::doctor::doctor(&local)).await?;
    findings.extend(trackers(&config, &state).await);
    if options.json {
        let all: Vec<_> = findings.iter().map(finding_json).collect();
        emit(&format!("{}\n", serde_json::to_string_pretty(&all)?))?;
    } else {
        emit(&findings.iter().map(in_words).collect::<String>())?;
    }
    let is_broken = findings.iter().any(|f| f.level == Level::Problem);
    Ok(if is_broken {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The trackers that the store knows, and whether they can be reached from here.
async fn trackers(config: &Config, state: &StateDir) -> Vec<Finding> {
    let found = async {
        let base = assemble::base(config, state).await?;
        let door = assemble::door(&base, &Supervisor::new()).await?;
        let trackers = door.trackers().await?;
        base.store.close().await;
        anyhow::Ok(trackers)
    };
    match found.await {
        Err(error) => vec![Finding {
            what: format!("the store does not open: {error:#}"),
            means: "no role of Coffer can start".to_owned(),
            todo: "mend state.store_url, or the store".to_owned(),
            level: Level::Problem,
        }],
        Ok(trackers) if trackers.is_empty() => vec![Finding {
            what: "no tracker runs".to_owned(),
            means: "`coffer connect` is refused; all else works".to_owned(),
            todo: "run `coffer up`, or `coffer tracker` on the instances' host".to_owned(),
            level: Level::Advice,
        }],
        Ok(trackers) => trackers.iter().map(tracker).collect(),
    }
}

fn tracker((view, answers): &(TrackerView, bool)) -> Finding {
    let (address, links) = (&view.tracker.address, view.links);
    if *answers {
        return Finding {
            what: format!("the tracker at {address} answers; it leads to {links} instances"),
            means: "`coffer connect` goes through it".to_owned(),
            todo: String::new(),
            level: Level::Good,
        };
    }
    Finding {
        what: format!("the tracker at {address} does not answer; {links} instances' links name it"),
        means: "another one is asked instead; with none, `coffer connect` is refused".to_owned(),
        todo: "start it again, or wait until the others have forgotten it".to_owned(),
        level: Level::Advice,
    }
}

const fn level(finding: &Finding) -> &'static str {
    match finding.level {
        Level::Good => "good",
        Level::Advice => "advice",
        Level::Problem => "problem",
    }
}

fn finding_json(finding: &Finding) -> serde_json::Value {
    serde_json::json!({
        "level": level(finding),
        "what": finding.what,
        "means": finding.means,
        "todo": finding.todo,
    })
}

fn in_words(finding: &Finding) -> String {
    let mut text = format!("{:8} {}\n", level(finding), finding.what);
    for line in finding.means.lines() {
        text.push_str(&format!("         {line}\n"));
    }
    if !finding.todo.is_empty() {
        text.push_str(&format!("         to do: {}\n", finding.todo));
    }
    text
}
