-- Where the broker put each packet of the ledger, beside `topic` and `delivered`.

alter table alerts add column partition integer;
alter table alerts add column "offset" bigint;
alter table alerts add column sends integer not null default 0;   -- how often a broker acknowledged it: more than once after a replay

create index alerts_pending on alerts (run, file) where state = 'sealed' and delivered is null;
