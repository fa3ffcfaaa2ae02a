-- How many tasks had an instance to themselves: providers refuse what carries an older number than
-- they have heard of (style: one task after the other, by exclusive locks).
ALTER TABLE instances ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;
