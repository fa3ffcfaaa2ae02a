//! End to end on this host: a real Coffer, real sandboxes, a real PostgreSQL, stock clients.

mod failures;
mod hostile;
mod kills;
mod legacy;
mod processes;
mod reboot;
mod spine;
