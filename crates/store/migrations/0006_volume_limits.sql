-- How fast a volume of this type may be read and written each second; NULL where nothing limits it.
ALTER TABLE volume_types ADD COLUMN read_iops_sec BIGINT;
ALTER TABLE volume_types ADD COLUMN write_iops_sec BIGINT;
ALTER TABLE volume_types ADD COLUMN read_bytes_sec BIGINT;
ALTER TABLE volume_types ADD COLUMN write_bytes_sec BIGINT;
