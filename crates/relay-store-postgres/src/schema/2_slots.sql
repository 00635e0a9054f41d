-- A store may lie in several databases. See docs/scale-out.md.

-- The slots that this database holds, such as '0-127,200'. NULL until the first relay has started.
-- Programs for schema 1 do not look at it. So whoever gives a database less than all slots also
-- raises compatible_from to 2.
ALTER TABLE meta ADD COLUMN IF NOT EXISTS slots text;
UPDATE meta SET schema_version = 2;
