//! What a restored state does not know, shown to the operator and settled when he confirms. The
//! task manager of the running Coffer looks and settles; here it is asked and waited for.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use coffer_cli::Options;
use coffer_cli::output::emit;
use coffer_control::clock::{Clock, SystemClock};
use coffer_control::taskmanager::periodic::restored::{Line, RestoreReport};
use coffer_store::Store;
use coffer_store::restored::Confirmed;

use crate::args::Place;
use crate::refusal::refused;
use crate::state_dir::StateDir;

/// How long the running Coffer may take to settle.
const SETTLE_MAX: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);

/// Shows what was found, or what was done.
pub(super) async fn report(place: &Place, options: &Options) -> anyhow::Result<ExitCode> {
    let store = open(place).await?;
    let shown = show(&store, options).await;
    store.close().await;
    shown.map(|()| ExitCode::SUCCESS)
}

/// Confirms, and waits until it is settled.
pub(super) async fn confirm(
    place: &Place,
    discard_unknown: bool,
    options: &Options,
) -> anyhow::Result<ExitCode> {
    let store = open(place).await?;
    let settled = settled(&store, discard_unknown).await;
    let shown = match settled {
        Ok(()) => show(&store, options).await,
        Err(error) => Err(error),
    };
    store.close().await;
    shown.map(|()| ExitCode::SUCCESS)
}

async fn open(place: &Place) -> anyhow::Result<Store> {
    let config = place.load()?;
    StateDir::existing(&config.state.dir)?;
    let url = config.store_url().parse()?;
    Ok(Store::open_present(&url).await?)
}

async fn settled(store: &Store, discard_unknown: bool) -> anyhow::Result<()> {
    if store.restored().await?.is_none() {
        return Err(refused(
            "there is nothing to confirm: this state was not restored, or is confirmed already",
        ));
    }
    if store.restore_report().await?.is_none() {
        return Err(refused(
            "nothing was looked at yet: start coffer, read 'coffer state report', then confirm",
        ));
    }
    let how = match discard_unknown {
        true => Confirmed::Discard,
        false => Confirmed::Keep,
    };
    store.confirm_restored(how).await?;
    let clock = SystemClock::new();
    while clock.monotonic() < SETTLE_MAX {
        clock.sleep(PAUSE).await;
        let Some(mark) = store.restored().await? else {
            return Ok(());
        };
        if mark.confirmed.is_none() {
            let text = store.restore_report().await?.unwrap_or_default();
            let why = RestoreReport::read(&text).and_then(|report| report.refused);
            bail!("not settled: {}", why.unwrap_or_default());
        }
    }
    bail!(
        "the confirmation is noted, and no running Coffer has settled it yet: start coffer, which \
         does it, and look with coffer state report"
    )
}

async fn show(store: &Store, options: &Options) -> anyhow::Result<()> {
    let mark = store.restored().await?;
    let Some(text) = store.restore_report().await? else {
        let what = match mark {
            None => "this state was not restored from a backup",
            Some(_) => "restored, and not looked at yet: start coffer",
        };
        return Ok(emit(&format!("{what}\n"))?);
    };
    if options.json {
        return Ok(emit(&format!("{text}\n"))?);
    }
    let report = RestoreReport::read(&text).context("read the report in the store")?;
    let head = match mark {
        Some(mark) => format!(
            "restored at {} from a backup of {}; nothing is begun or removed until you confirm\n",
            mark.restored_at, mark.made_at
        ),
        None => "restored and settled\n".to_owned(),
    };
    Ok(emit(&format!("{head}{}", in_words(&report)))?)
}

fn in_words(report: &RestoreReport) -> String {
    let mut text = String::new();
    let groups = [
        ("created since the backup", &report.created_since),
        ("deleted since the backup", &report.deleted_since),
        ("not there any more", &report.lost),
        ("changed since the backup", &report.changed_since),
    ];
    for (title, lines) in groups {
        text.push_str(&format!("{title}: {}\n", lines.len()));
        for Line {
            id,
            name,
            project_id,
            what,
        } in lines
        {
            text.push_str(&format!(
                "  {name} ({id}) of project {project_id}: {what}\n"
            ));
        }
    }
    text.push_str(&format!("not known what it is: {}\n", report.unknown.len()));
    for one in &report.unknown {
        text.push_str(&format!("  {one}\n"));
    }
    text.push_str(&format!(
        "tasks of then, ended on confirmation: {}\n",
        report.open_tasks
    ));
    if let Some(why) = &report.refused {
        text.push_str(&format!("the last confirmation was not followed: {why}\n"));
    }
    if !report.is_settled {
        text.push_str("to do: coffer state confirm\n");
    }
    text
}
