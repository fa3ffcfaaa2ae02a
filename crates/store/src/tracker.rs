//! Trackers, which links they lead along, and grants of their relays, each used once.
//!
//! A tracker that lives moves its counter; nobody compares clocks. What it granted ends by the
//! same counter.

use coffer_core::actor::Actor;
use coffer_core::id::{InstanceId, TenantId, TrackerId};
use coffer_core::tracker::{Grant, RelayPurpose, Tracker};

use crate::error::Result;
use crate::row::{Reader, actor_args, args};
use crate::sql::Row;
use crate::store::Store;

/// A tracker and the number of links that name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackerView {
    /// The tracker.
    pub tracker: Tracker,
    /// Links that lead along it.
    pub links: u64,
}

macro_rules! select {
    ($more:literal, $rest:literal) => {
        concat!(
            "SELECT t.id, t.provider, t.address, t.beat, t.started_at ",
            $more,
            " FROM trackers t ",
            $rest
        )
    };
}

/// The one that the link names first, then those that started last.
const LEADING_TO: &str = select!(
    "",
    "JOIN servers s ON s.provider = t.provider LEFT JOIN links l ON l.server_id = s.id \
     WHERE s.instance_id = $1 AND s.purpose = 'instance' \
     ORDER BY CASE WHEN l.tracker_id = t.id THEN 0 ELSE 1 END, t.id DESC LIMIT $2"
);
const ALL: &str = select!(
    ", (SELECT COUNT(*) FROM links l WHERE l.tracker_id = t.id)",
    "ORDER BY t.id"
);

fn decode(row: &mut Reader<'_>) -> Result<Tracker> {
    Ok(Tracker {
        id: row.parse("id")?,
        provider: row.text("provider")?,
        address: row.text("address")?,
        beat: row.number("beat")?,
        started_at: row.time("started_at")?,
    })
}

fn view(row: &Row) -> Result<TrackerView> {
    let mut row = Reader::new(row, "trackers");
    Ok(TrackerView {
        tracker: decode(&mut row)?,
        links: row.number("links")?,
    })
}

impl Store {
    /// Makes a tracker known.
    pub async fn insert_tracker(&self, tracker: &Tracker) -> Result<()> {
        let sql = "INSERT INTO trackers (id, provider, address, beat, started_at)
            VALUES ($1, $2, $3, $4, $5)";
        let Tracker {
            id,
            provider,
            address,
            beat,
            started_at,
        } = tracker;
        let args = args![id, provider, address, beat, started_at];
        let done = self.db().execute(sql, args).await.map(drop);
        done.map_err(|error| error.or_exists("tracker with this id"))
    }

    /// A sign of life: moves the tracker's counter, forgets its grants that ended by that, and
    /// names it in links of its provider that name none. `false` when others took it for dead.
    pub async fn beat_tracker(&self, id: TrackerId) -> Result<bool> {
        let beat = "UPDATE trackers SET beat = beat + 1 WHERE id = $1";
        if self.db().execute(beat, args![id]).await? == 0 {
            return Ok(false);
        }
        let ended = "DELETE FROM relay_grants WHERE tracker_id = $1
            AND until_beat <= (SELECT beat FROM trackers WHERE id = $1)";
        self.db().execute(ended, args![id]).await?;
        let lead = "UPDATE links SET tracker_id = $1 WHERE tracker_id IS NULL AND server_id IN
            (SELECT s.id FROM servers s JOIN trackers t ON t.provider = s.provider
                WHERE t.id = $1)";
        self.db().execute(lead, args![id]).await?;
        Ok(true)
    }

    /// Every tracker, the oldest first.
    pub async fn list_trackers(&self) -> Result<Vec<TrackerView>> {
        let rows = self.db().fetch_all(ALL, args![]).await?;
        rows.iter().map(view).collect()
    }

    /// Trackers that reach the guest of an instance: the one that its link names, then others.
    pub async fn list_trackers_to(
        &self,
        instance_id: InstanceId,
        limit: u32,
    ) -> Result<Vec<Tracker>> {
        let args = args![instance_id, limit];
        let rows = self.db().fetch_all(LEADING_TO, args).await?;
        rows.iter()
            .map(|row| decode(&mut Reader::new(row, "trackers")))
            .collect()
    }

    /// Names a tracker in the link of an instance, where it names another.
    pub async fn lead_link(&self, instance_id: InstanceId, id: TrackerId) -> Result<()> {
        let sql = "UPDATE links SET tracker_id = $2 WHERE server_id IN
                (SELECT id FROM servers WHERE instance_id = $1 AND purpose = 'instance')
            AND (tracker_id IS NULL OR tracker_id <> $2)";
        let done = self.db().execute(sql, args![instance_id, id]).await;
        done.map(drop).map_err(|error| error.or_missing("tracker"))
    }

    /// Forgets a tracker with its grants; succeeds when absent.
    pub async fn delete_tracker(&self, id: TrackerId) -> Result<()> {
        let sql = "DELETE FROM trackers WHERE id = $1";
        self.db().execute(sql, args![id]).await.map(drop)
    }

    /// Forgets a tracker whose counter was seen standing still here; `false` when it has moved.
    pub async fn delete_unmoved_tracker(&self, id: TrackerId, beat: u64) -> Result<bool> {
        let sql = "DELETE FROM trackers WHERE id = $1 AND beat = $2";
        Ok(self.db().execute(sql, args![id, beat]).await? > 0)
    }

    /// Writes a grant; `NotFound` when its tracker or instance is gone.
    pub async fn insert_grant(&self, grant: &Grant) -> Result<()> {
        let sql = "INSERT INTO relay_grants (hash, tracker_id, tenant_id, instance_id, purpose,
                until_beat, actor_tenant_id, actor_user_id, actor_roles, actor_request_id,
                actor_client_address)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        let mut args = args![
            grant.hash,
            grant.tracker_id,
            grant.tenant_id,
            grant.instance_id,
            grant.purpose,
            grant.until,
        ];
        args.extend(actor_args(Some(&grant.actor)));
        let done = self.db().execute(sql, args).await.map(drop);
        done.map_err(|error| error.or_exists("grant").or_missing("tracker or instance"))
    }

    /// Uses a grant up: who asked for it, if it is this tracker's, for this project, instance and
    /// purpose, has not ended, and the instance is that project's. Of several at once one has it.
    pub async fn use_grant(
        &self,
        tracker_id: TrackerId,
        hash: &str,
        wanted: (&TenantId, InstanceId, RelayPurpose),
    ) -> Result<Option<Actor>> {
        let sql = "SELECT actor_tenant_id, actor_user_id, actor_roles, actor_request_id,
                actor_client_address FROM relay_grants WHERE hash = $1";
        let Some(row) = self.db().fetch_optional(sql, args![hash]).await? else {
            return Ok(None);
        };
        let actor = Reader::new(&row, "relay_grants").actor()?;
        let sql = "DELETE FROM relay_grants WHERE hash = $1 AND tracker_id = $2
            AND tenant_id = $3 AND instance_id = $4 AND purpose = $5
            AND until_beat > (SELECT beat FROM trackers WHERE id = $2)
            AND EXISTS (SELECT 1 FROM instances i
                WHERE i.id = $4 AND i.tenant_id = $3 AND i.is_deleted = 0)";
        let (tenant_id, instance_id, purpose) = wanted;
        let args = args![hash, tracker_id, tenant_id, instance_id, purpose];
        let is_ours = self.db().execute(sql, args).await? > 0;
        Ok(is_ours.then_some(actor))
    }
}
