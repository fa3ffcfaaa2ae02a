//! PostgreSQL's isolation levels, on a database whose own default is another: a claim reads what
//! is committed, and what the store begins is serializable.

use super::storms::tasks_are_claimed_once;
use super::world::World;
use crate::fixture::Fixture;

/// Everybody who connects from now on begins as serializable.
const DEFAULT: &str = "DO 'BEGIN
    EXECUTE format(''ALTER DATABASE %I SET default_transaction_isolation = serializable'',
        current_database());
    END'";
/// Where the triggers below note at which level a statement ran.
const SEEN: &str = "CREATE TABLE seen (what TEXT NOT NULL, level TEXT NOT NULL)";
const NOTE: &str = "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
    INSERT INTO seen VALUES (TG_ARGV[0], current_setting(''transaction_isolation''));
    RETURN NEW; END'";
const CLAIMED: &str = "CREATE TRIGGER claimed BEFORE UPDATE ON tasks FOR EACH ROW
    WHEN (OLD.state <> 'running' AND NEW.state = 'running') EXECUTE FUNCTION note('claim')";
const BEGUN: &str = "CREATE TRIGGER begun BEFORE INSERT ON instances FOR EACH ROW
    EXECUTE FUNCTION note('begin')";
/// The connection that checks is nobody's but the server's: it shows that the default is in force.
const CHECK: &str = "DO 'DECLARE found TEXT; BEGIN
    INSERT INTO seen VALUES (''default'', current_setting(''transaction_isolation''));
    SELECT string_agg(line, '', '' ORDER BY line) INTO found
        FROM (SELECT DISTINCT what || '' '' || level AS line FROM seen) lines;
    IF found IS DISTINCT FROM
        ''begin serializable, claim read committed, default serializable'' THEN
        RAISE EXCEPTION ''%'', found;
    END IF; END'";

pub(crate) async fn levels_do_not_follow_the_server(fixture: &mut Fixture) {
    fixture.raw(DEFAULT).await;
    for statement in [SEEN, NOTE, CLAIMED, BEGUN] {
        fixture.raw(statement).await;
    }
    // The fixture's own are connected since before.
    fixture.stores = vec![fixture.another().await, fixture.another().await];
    tasks_are_claimed_once(fixture).await;
    let world = World::new(fixture.store(), "other").await;
    world.create(fixture.store(), "db").await;
    fixture.raw(CHECK).await;
}
