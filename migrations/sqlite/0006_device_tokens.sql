-- Device tokens that were made before this instant are void: somebody else had them made.
ALTER TABLE users ADD COLUMN devices_since INTEGER NOT NULL DEFAULT 0;
