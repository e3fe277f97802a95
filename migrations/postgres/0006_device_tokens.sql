-- Device tokens that were made before this instant are void: somebody else had them made.
ALTER TABLE users ADD COLUMN devices_since BIGINT NOT NULL DEFAULT 0;
