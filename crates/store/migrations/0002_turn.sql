-- How many tasks had an instance to themselves: what carries an older number than a provider has
-- heard of is refused.
ALTER TABLE instances ADD COLUMN turn BIGINT NOT NULL DEFAULT 0;
