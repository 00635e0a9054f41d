-- The database of the relays and its two roles: one owns the tables, the other one only reads and writes rows.
-- Patroni runs it with psql (15 or later, for \getenv) when it makes the first server.

\getenv owner_password RELAY_OWNER_PASSWORD
\getenv password RELAY_PASSWORD

CREATE ROLE relay_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE relay LOGIN PASSWORD :'password';
-- So that the relay sees the oldest transaction of other roles, for a metric.
GRANT pg_read_all_stats TO relay;
CREATE DATABASE relay OWNER relay_owner ENCODING 'UTF8' TEMPLATE template0;
REVOKE CONNECT ON DATABASE relay FROM PUBLIC;
GRANT CONNECT ON DATABASE relay TO relay;

\connect relay
SET ROLE relay_owner;
CREATE SCHEMA relay;
GRANT USAGE ON SCHEMA relay TO relay;
-- For the tables that `relay-bin migrate` creates, now and later.
ALTER DEFAULT PRIVILEGES IN SCHEMA relay GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO relay;
