//! What users may do, as rules of the engine's access control lists.
//!
//! Everything on keys, and nothing that reaches the process, its files, its memory as a whole or
//! other users: the engine's categories `admin` and `dangerous` go, and what is harmless in them
//! comes back by name. A command that a later version adds to these categories stays away by
//! itself. `docs/security.md` lists what is refused, line by line with a test.

/// Rules of every user.
const KEYS: &[&str] = &[
    "sanitize-payload",
    "~*",
    "&*",
    "+@all",
    "-@admin",
    "-@dangerous",
];

/// What comes back for a user: its own keys as a whole, and a look at the server.
const USER: &[&str] = &[
    "+flushall",
    "+flushdb",
    "+keys",
    "+sort",
    "+sort_ro",
    "+swapdb",
    "+restore",
    "+info",
    "+role",
    "+lastsave",
    "+client|list",
];

/// What comes back for root beside that: looking on, and ending other clients' connections.
const ROOT: &[&str] = &[
    "+client|kill",
    "+client|no-evict",
    "+config|get",
    "+config|resetstat",
    "+latency",
    "+monitor",
    "+slowlog",
    "+bgrewriteaof",
    "+acl|cat",
    "+acl|dryrun",
    "+acl|genpass",
    "+acl|log",
    "+acl|users",
];

/// Rules of a user of the tenant's.
pub(super) fn user() -> impl Iterator<Item = &'static str> {
    KEYS.iter().chain(USER).copied()
}

/// Rules of root, which it has to have also while it may not log in: the engine reads its
/// append-only file as this user, and a transaction in it that the user has no right to is left
/// out, with nothing but a line in the log.
pub(super) fn root() -> impl Iterator<Item = &'static str> {
    user().chain(ROOT.iter().copied())
}
