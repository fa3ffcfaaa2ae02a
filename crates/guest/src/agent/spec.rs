//! Enrolment, the spec, and the status: what is told once and what is asked for again and again.

use std::sync::Arc;
use std::time::Duration;

use coffer_wire::guest::v1::{Enrolled, Enrolment, Spec, SpecAccepted, Status};

use crate::agent::Shared;
use crate::agent::routes::{Answer, Refused};
use crate::agent::store::Memory;
use crate::error::GuestError;
use crate::limits;
use crate::log;

/// Whether the link certificate was installed.
pub(crate) async fn is_enrolled(shared: &Shared) -> bool {
    shared
        .store
        .look(|memory| memory.link_cert_pem.is_some())
        .await
}

/// The certificate requests.
pub(crate) async fn enrolment(shared: &Shared) -> Answer<Enrolment> {
    let requests = shared
        .identity
        .requests()
        .map_err(|error| Refused::failed(&error))?;
    let (link_csr_pem, engine_csr_pem) = requests;
    Ok(Enrolment {
        server_id: shared.boot.server_id.clone(),
        link_csr_pem,
        engine_csr_pem,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        is_enrolled: is_enrolled(shared).await,
    })
}

/// Installs the link certificate; the next handshake shows it.
pub(crate) async fn enrol(shared: &Shared, enrolled: Enrolled) -> Answer<Enrolment> {
    let shown = shared.identity.show(&enrolled.link_cert_pem);
    shown.map_err(|error| Refused::bad_request(error.to_string()))?;
    let keep = |memory: &mut Memory| -> Result<(), GuestError> {
        memory.link_cert_pem = Some(enrolled.link_cert_pem);
        Ok(())
    };
    let kept = shared.store.change(keep).await.and_then(|kept| kept);
    kept.map_err(|error| Refused::failed(&error))?;
    log::info(format_args!("enrolled"));
    enrolment(shared).await
}

/// Takes a spec unless a newer one is known; it is on disk when this answers.
pub(crate) async fn accept(shared: &Arc<Shared>, spec: Spec) -> Answer<SpecAccepted> {
    check(&spec)?;
    let accepted = SpecAccepted {
        generation: spec.generation,
        version: spec.version,
    };
    let take = |memory: &mut Memory| -> Result<(), Refused> {
        let held = memory
            .spec
            .as_ref()
            .map_or((0, 0), |held| (held.generation, held.version));
        let held = held.max((memory.generation, 0));
        if (spec.generation, spec.version) < held {
            return Err(Refused::older("a newer spec or generation is known"));
        }
        // A version stands for one content: who waits for it may believe that it has its own.
        let is_other = memory.spec.as_ref().is_some_and(|known| *known != spec);
        if (spec.generation, spec.version) == held && is_other {
            return Err(Refused::other_content(
                "this version of the spec is known with another content",
            ));
        }
        memory.generation = spec.generation;
        memory.spec = Some(spec);
        Ok(())
    };
    shared
        .store
        .change(take)
        .await
        .map_err(|error| Refused::failed(&error))??;
    shared.status.change(|status| {
        status.generation = accepted.generation;
        status.spec_version = accepted.version;
    });
    shared.spec_changed.send_modify(|count| *count += 1);
    Ok(accepted)
}

fn check(spec: &Spec) -> Answer<()> {
    if spec.config.len() > limits::CONFIG_FILES_MAX {
        return Err(Refused::bad_request(
            "the spec has too many configuration files",
        ));
    }
    for file in &spec.config {
        let is_plain = !file.name.is_empty()
            && !file.name.starts_with('.')
            && file
                .name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if !is_plain || file.name.len() > 64 {
            return Err(Refused::bad_request(
                "a configuration file's name is not plain",
            ));
        }
        if file.content.len() > limits::CONFIG_FILE_BYTES_MAX {
            return Err(Refused::bad_request("a configuration file is too large"));
        }
    }
    Ok(())
}

/// The status as soon as its sequence exceeds `after`, or at the end of `wait`.
pub(crate) async fn status(shared: &Shared, after: Option<u64>, wait: Duration) -> Status {
    let mut watch = shared.status.watch();
    if let Some(after) = after {
        let newer = watch.wait_for(|status| status.sequence > after);
        // What is there at the end of the wait is answered either way.
        tokio::time::timeout(wait, newer)
            .await
            .map(|_| ())
            .unwrap_or(());
    }
    shared.status.now()
}
