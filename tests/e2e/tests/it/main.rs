//! End to end on this host: a real Coffer, real sandboxes, a real PostgreSQL, stock clients.

#![expect(clippy::too_many_lines, reason = "a test tells its story in one piece")]

mod agents;
mod backup;
mod bare;
mod bytes;
mod clients;
mod clock;
mod clones;
mod command_line;
mod connect;
mod cut_short;
mod disk;
mod drain;
mod engines;
mod failures;
mod first_start;
mod full_volume;
mod fuzz;
mod hostile;
mod images;
mod inside;
mod keyvalue;
mod kills;
mod legacy;
mod logs;
mod neighbours;
mod operator;
mod processes;
mod published;
mod reboot;
mod server_store;
mod spine;
mod sql_engines;
mod sql_root;
mod state;
mod stop;
mod store_lost;
mod upgrade;
mod without_root;
