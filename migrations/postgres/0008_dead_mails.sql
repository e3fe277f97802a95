-- Mails that were given up are few among those that were sent, and are counted at every look at the metrics.
CREATE INDEX outbox_dead ON outbox (finished_at) WHERE state = 'dead';
