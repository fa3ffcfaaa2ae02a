//! Between rows and domain types: parameters made from values, and values read from columns.
//!
//! A row is read column by column in the order of its statement. A column that does not hold what
//! its type demands is `StoreError::Corrupt`, never a panic.

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

use coffer_core::access::Cidr;
use coffer_core::actor::Actor;
use coffer_core::event::Severity;
use coffer_core::id::{
    AuditId, DatastoreId, DatastoreVersionId, EndpointId, EventId, FlavorId, InstanceId, LinkId,
    NetworkId, ProjectKeyId, SecretId, ServerId, SetId, TaskId, TenantId, TrackerId, UserId,
    VolumeId,
};
use coffer_core::instance::{Health, Lifecycle};
use coffer_core::name::Name;
use coffer_core::quota::Resource;
use coffer_core::replication::{EndpointKind, SetMode};
use coffer_core::server::{LinkForm, Presence, ServerPurpose, VolumeRole};
use coffer_core::task::{LockKind, LockMode, Signal, TaskState};
use coffer_core::time::Timestamp;
use coffer_core::tracker::RelayPurpose;
use coffer_core::units::{BytesPerSecond, Generation, Incarnation, Iops, Timeline, VolumeSize};

use crate::error::{Result, StoreError};
use crate::sql::{Arg, Columns};

/// A value that can be a parameter.
pub(crate) trait ToArg {
    /// The parameter.
    fn to_arg(&self) -> Arg;
    /// A NULL of its type.
    fn null() -> Arg;
}

/// A list of parameters.
macro_rules! args {
    ($($value:expr),* $(,)?) => {
        vec![$($crate::row::ToArg::to_arg(&$value)),*]
    };
}
pub(crate) use args;

macro_rules! text_arg {
    ($($type:ty),* $(,)?) => {$(
        impl ToArg for $type {
            fn to_arg(&self) -> Arg {
                Arg::Text(Some(self.to_string()))
            }
            fn null() -> Arg {
                Arg::Text(None)
            }
        }
    )*};
}

text_arg! {
    str, String, IpAddr, Cidr, Name, TenantId, UserId, FlavorId, InstanceId, SetId, EndpointId,
    ServerId, VolumeId, NetworkId, DatastoreId, DatastoreVersionId, TaskId, EventId, AuditId,
    LinkId, ProjectKeyId, SecretId, Severity, Lifecycle, Health, Resource, EndpointKind, SetMode,
    LinkForm, Presence, ServerPurpose, VolumeRole, LockKind, LockMode, Signal, TaskState,
    TrackerId, RelayPurpose,
}

/// A number as the store has it. No count of ours is so large that it does not fit; what a guest
/// says may be, and must not read back as another.
pub(crate) fn saturated(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

macro_rules! int_arg {
    ($($type:ty: $value:ident => $int:expr;)*) => {$(
        impl ToArg for $type {
            fn to_arg(&self) -> Arg {
                let $value = *self;
                Arg::Int(Some($int))
            }
            fn null() -> Arg {
                Arg::Int(None)
            }
        }
    )*};
}

int_arg! {
    i64: value => value;
    u16: value => i64::from(value);
    u32: value => i64::from(value);
    u64: value => saturated(value);
    bool: value => i64::from(value);
    Timestamp: value => value.micros();
    VolumeSize: value => i64::from(value.as_gib());
    Iops: value => value.get().cast_signed();
    BytesPerSecond: value => value.get().cast_signed();
    Generation: value => value.0.cast_signed();
    Incarnation: value => value.0.cast_signed();
    Timeline: value => value.0.cast_signed();
}

impl ToArg for Vec<u8> {
    fn to_arg(&self) -> Arg {
        Arg::Blob(Some(self.clone()))
    }
    fn null() -> Arg {
        Arg::Blob(None)
    }
}

impl<T: ToArg> ToArg for Option<T> {
    fn to_arg(&self) -> Arg {
        self.as_ref().map_or_else(T::null, T::to_arg)
    }
    fn null() -> Arg {
        T::null()
    }
}

impl<T: ToArg + ?Sized> ToArg for &T {
    fn to_arg(&self) -> Arg {
        (**self).to_arg()
    }
    fn null() -> Arg {
        T::null()
    }
}

/// A list as one text column: a JSON array of strings.
pub(crate) fn list_text<T: Display>(list: &[T]) -> String {
    serde_json::Value::from_iter(list.iter().map(T::to_string)).to_string()
}

/// Parameters of an actor, in the order of the `actor_*` columns.
pub(crate) fn actor_args(actor: Option<&Actor>) -> [Arg; 5] {
    [
        actor.map(|a| &a.tenant_id).to_arg(),
        actor.map(|a| &a.user_id).to_arg(),
        actor.map(|a| list_text(&a.roles)).to_arg(),
        actor.map(|a| &a.request_id).to_arg(),
        actor.map(|a| &a.client_address).to_arg(),
    ]
}

/// Reads a row column by column.
pub(crate) struct Reader<'r> {
    columns: Columns<'r>,
    table: &'static str,
    next: usize,
}

impl<'r> Reader<'r> {
    /// A reader at the first column, which is or begins the row's key.
    pub(crate) fn new(columns: impl Into<Columns<'r>>, table: &'static str) -> Self {
        Self::at(columns, table, 0)
    }

    /// A reader of the columns from `first` on, which belong to another table.
    pub(crate) fn at(columns: impl Into<Columns<'r>>, table: &'static str, first: usize) -> Self {
        Self {
            columns: columns.into(),
            table,
            next: first,
        }
    }

    fn advance(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    /// The error that this column is damaged.
    pub(crate) fn corrupt(&self, column: &'static str) -> StoreError {
        let id = self.columns.text(0).flatten().unwrap_or("?").to_owned();
        StoreError::Corrupt {
            table: self.table,
            id,
            column,
        }
    }

    /// A text that may be NULL.
    pub(crate) fn opt_str(&mut self, column: &'static str) -> Result<Option<&'r str>> {
        let index = self.advance();
        self.columns.text(index).ok_or_else(|| self.corrupt(column))
    }

    /// A text.
    pub(crate) fn str(&mut self, column: &'static str) -> Result<&'r str> {
        self.opt_str(column)?.ok_or_else(|| self.corrupt(column))
    }

    /// A text of one's own.
    pub(crate) fn text(&mut self, column: &'static str) -> Result<String> {
        self.str(column).map(str::to_owned)
    }

    /// A text of one's own that may be NULL.
    pub(crate) fn opt_text(&mut self, column: &'static str) -> Result<Option<String>> {
        Ok(self.opt_str(column)?.map(str::to_owned))
    }

    /// An integer that may be NULL.
    pub(crate) fn opt_int(&mut self, column: &'static str) -> Result<Option<i64>> {
        let index = self.advance();
        self.columns.int(index).ok_or_else(|| self.corrupt(column))
    }

    /// An integer.
    pub(crate) fn int(&mut self, column: &'static str) -> Result<i64> {
        self.opt_int(column)?.ok_or_else(|| self.corrupt(column))
    }

    /// Bytes.
    pub(crate) fn blob(&mut self, column: &'static str) -> Result<Vec<u8>> {
        let index = self.advance();
        let bytes = self
            .columns
            .blob(index)
            .flatten()
            .ok_or_else(|| self.corrupt(column))?;
        Ok(bytes.to_vec())
    }

    /// An integer that fits a narrower or unsigned type.
    pub(crate) fn number<T: TryFrom<i64>>(&mut self, column: &'static str) -> Result<T> {
        T::try_from(self.int(column)?).map_err(|_| self.corrupt(column))
    }

    /// As `number`, but it may be NULL.
    pub(crate) fn opt_number<T: TryFrom<i64>>(
        &mut self,
        column: &'static str,
    ) -> Result<Option<T>> {
        self.opt_int(column)?
            .map(|v| T::try_from(v).map_err(|_| self.corrupt(column)))
            .transpose()
    }

    /// A truth value, stored as 0 or 1.
    pub(crate) fn bool(&mut self, column: &'static str) -> Result<bool> {
        match self.int(column)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.corrupt(column)),
        }
    }

    /// A point in time.
    pub(crate) fn time(&mut self, column: &'static str) -> Result<Timestamp> {
        self.int(column).map(Timestamp::from_micros)
    }

    /// A point in time that may be NULL.
    pub(crate) fn opt_time(&mut self, column: &'static str) -> Result<Option<Timestamp>> {
        Ok(self.opt_int(column)?.map(Timestamp::from_micros))
    }

    /// An id, word or address.
    pub(crate) fn parse<T: FromStr>(&mut self, column: &'static str) -> Result<T> {
        self.str(column)?.parse().map_err(|_| self.corrupt(column))
    }

    /// As `parse`, but it may be NULL.
    pub(crate) fn opt_parse<T: FromStr>(&mut self, column: &'static str) -> Result<Option<T>> {
        self.opt_str(column)?
            .map(|v| v.parse().map_err(|_| self.corrupt(column)))
            .transpose()
    }

    /// A name.
    pub(crate) fn name(&mut self, column: &'static str) -> Result<Name> {
        Name::parse("name", self.str(column)?).map_err(|_| self.corrupt(column))
    }

    /// A size in GiB.
    pub(crate) fn size(&mut self, column: &'static str) -> Result<VolumeSize> {
        VolumeSize::gib(self.int(column)?).map_err(|_| self.corrupt(column))
    }

    /// A rate that may be NULL, checked by its type.
    pub(crate) fn opt_rate<T>(
        &mut self,
        column: &'static str,
        parse: fn(&'static str, i64) -> coffer_core::Result<T>,
    ) -> Result<Option<T>> {
        self.opt_int(column)?
            .map(|value| parse(column, value).map_err(|_| self.corrupt(column)))
            .transpose()
    }

    /// A list, stored as a JSON array of strings.
    pub(crate) fn list<T: FromStr>(&mut self, column: &'static str) -> Result<Vec<T>> {
        let text = self.str(column)?;
        if text == "[]" {
            return Ok(Vec::new());
        }
        let list: Vec<String> = serde_json::from_str(text).map_err(|_| self.corrupt(column))?;
        list.iter()
            .map(|item| item.parse().map_err(|_| self.corrupt(column)))
            .collect()
    }

    /// An actor that may be absent: the five `actor_*` columns.
    pub(crate) fn opt_actor(&mut self) -> Result<Option<Actor>> {
        if self.columns.text(self.next).flatten().is_none() {
            self.next += 5;
            return Ok(None);
        }
        self.actor().map(Some)
    }

    /// An actor: the five `actor_*` columns.
    pub(crate) fn actor(&mut self) -> Result<Actor> {
        Ok(Actor {
            tenant_id: self.parse("actor_tenant_id")?,
            user_id: self.parse("actor_user_id")?,
            roles: self.list("actor_roles")?,
            request_id: self.text("actor_request_id")?,
            client_address: self.text("actor_client_address")?,
        })
    }
}
