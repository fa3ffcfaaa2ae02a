//! Settings: values that all processes on one store share, by name.

use crate::error::{Result, StoreError};
use crate::row::{Reader, args};
use crate::store::Store;

impl Store {
    /// The value of this name.
    pub async fn get_setting(&self, name: &str) -> Result<Option<String>> {
        let sql = "SELECT value FROM settings WHERE name = $1";
        let row = self.db().fetch_optional(sql, args![name]).await?;
        row.as_ref()
            .map(|row| Reader::new(row, "settings").text("value"))
            .transpose()
    }

    /// Writes or overwrites a value.
    pub async fn put_setting(&self, name: &str, value: &str) -> Result<()> {
        let sql = "INSERT INTO settings (name, value) VALUES ($1, $2)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.db().execute(sql, args![name, value]).await.map(drop)
    }

    /// Writes a value unless there is one; gives the one that is stored. Atomic: the first wins.
    pub async fn put_setting_once(&self, name: &str, value: &str) -> Result<String> {
        let sql = "INSERT INTO settings (name, value) VALUES ($1, $2)
            ON CONFLICT (name) DO NOTHING";
        self.db().execute(sql, args![name, value]).await?;
        self.get_setting(name)
            .await?
            .ok_or(StoreError::Stale { what: "setting" })
    }

    /// Forgets a value; succeeds when absent.
    pub async fn delete_setting(&self, name: &str) -> Result<()> {
        self.db()
            .execute("DELETE FROM settings WHERE name = $1", args![name])
            .await
            .map(drop)
    }

    /// Names and values of all settings whose names begin with `prefix`, by name.
    pub async fn list_settings(&self, prefix: &str) -> Result<Vec<(String, String)>> {
        let sql = "SELECT name, value FROM settings
            WHERE substr(name, 1, length($1)) = $1 ORDER BY name";
        let rows = self.db().fetch_all(sql, args![prefix]).await?;
        let pair = |row| {
            let mut row = Reader::new(row, "settings");
            Ok((row.text("name")?, row.text("value")?))
        };
        rows.iter().map(pair).collect()
    }

    /// Replaces a value; `false` when it is not the one that was read.
    pub async fn swap_setting(&self, name: &str, from: &str, to: &str) -> Result<bool> {
        let sql = "UPDATE settings SET value = $3 WHERE name = $1 AND value = $2";
        Ok(self.db().execute(sql, args![name, from, to]).await? > 0)
    }
}
