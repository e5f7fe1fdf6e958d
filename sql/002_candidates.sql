-- Candidates (difference-image detections), the objects they make, and the ledger of alert packets.

-- Partitioned by night, then by readout channel; partitions are made on demand. Columns: the alert schema's `candidate`, in its order,
-- then our own. Units are the schema's.
create table candidates (
    run text not null,
    provid text not null,                     -- of the product that put the row here
    jd double precision not null, fid integer not null, pid bigint not null, diffmaglim real, pdiffimfilename text, programpi text,
    programid integer, candid bigint not null, isdiffpos text, tblid bigint, nid integer not null, rcid integer not null,
    field integer not null, xpos real, ypos real, ra double precision not null, dec double precision not null, magpsf real,
    sigmapsf real, chipsf real, magap real, sigmagap real, distnr real, magnr real, sigmagnr real, chinr real, sharpnr real, sky real,
    magdiff real, fwhm real, classtar real, mindtoedge real, magfromlim real, seeratio real, aimage real, bimage real, aimagerat real,
    bimagerat real, elong real, nneg integer, nbad integer, rb real, ssdistnr real, ssmagnr real, ssnamenr text, sumrat real,
    magapbig real, sigmagapbig real, ranr double precision, decnr double precision, sgmag1 real, srmag1 real, simag1 real, szmag1 real,
    sgscore1 real, distpsnr1 real, ndethist integer, ncovhist integer, jdstarthist double precision, jdendhist double precision,
    scorr double precision, tooflag integer, objectidps1 bigint, objectidps2 bigint, sgmag2 real, srmag2 real, simag2 real,
    szmag2 real, sgscore2 real, distpsnr2 real, objectidps3 bigint, sgmag3 real, srmag3 real, simag3 real, szmag3 real, sgscore3 real,
    distpsnr3 real, nmtchps integer, rfid bigint, jdstartref double precision, jdendref double precision, nframesref integer,
    rbversion text, dsnrms real, ssnrms real, dsdiff real, magzpsci real, magzpsciunc real, magzpscirms real, nmatches integer,
    clrcoeff real, clrcounc real, zpclrcov real, zpmed real, clrmed real, clrrms real, neargaia real, neargaiabright real,
    maggaia real, maggaiabright real, exptime real, drb real, drbversion text,
    hpx bigint not null,                      -- HEALPix of ra, dec: order 16, NESTED
    objectid text,
    fate text                                 -- `packet`, or why the event became none; null until decided
) partition by list (nid);
create unique index candidates_identity on candidates (candid, run, nid, rcid);
create index candidates_place on candidates (hpx);
create index candidates_object on candidates (objectid) where objectid is not null;

create table event_sets (                     -- one row for every difference image whose events are in `candidates`
    run     text not null,
    pid     bigint not null,
    provid  text not null,
    nid     integer not null,
    rcid    smallint not null,
    field   integer,
    jd      double precision,
    events  integer not null,
    cells   integer[] not null,               -- HEALPix pixels the events lie in, order 7, NESTED
    created timestamptz not null default now(),
    primary key (run, pid)
);
create index on event_sets using gin (cells);
create index on event_sets (field, rcid);

create table objects (
    run      text not null,
    objectid text not null,
    candid   bigint not null,                 -- the first candidate
    ra       double precision not null,
    dec      double precision not null,
    hpx      bigint not null,
    field    integer,
    rcid     smallint,
    jd       double precision not null,
    year     smallint not null,
    seq      bigint not null,
    created  timestamptz not null default now(),
    primary key (run, objectid)
);
create index objects_place on objects (hpx);

create table object_members (                 -- kept for ever, so that a rerun gives a candidate the object it had
    run      text not null,
    candid   bigint not null,
    objectid text not null,
    primary key (run, candid)
);
create index on object_members (run, objectid);

create table object_sequences (run text not null, year smallint not null, next bigint not null, primary key (run, year));

create table alerts (                         -- the ledger: one row for every packet
    run       text not null,
    candid    bigint not null,
    objectid  text not null,
    pid       bigint not null,
    provid    text not null,
    night     date not null,
    programid smallint,
    file      text,                           -- relative to the root
    state     text not null default 'sealed' check (state in ('sealed', 'unusable', 'nothing-to-do', 'quarantined', 'failed')),
    reason    text,
    topic     text,
    delivered timestamptz,
    created   timestamptz not null default now(),
    primary key (run, candid)
);
create index on alerts (run, night);
create index on alerts (run, pid);

-- A night's partition and its view `candidates_YYYYMMDD`. Attaching a table, unlike creating it as a partition, blocks no reader and
-- no writer.
create function prepare_night(wanted integer) returns text language plpgsql as $$
declare
    night_table text := 'candidates_n' || lpad(wanted::text, 5, '0');
    night_view text := 'candidates_' || to_char(date '2017-01-01' + wanted, 'YYYYMMDD');
begin
    if to_regclass(night_table) is null then
        perform pg_advisory_xact_lock(7236002, wanted);
        -- asked of the catalogue itself: to_regclass may still answer from before the lock was won
        if not exists (select from pg_class where relname = night_table and pg_table_is_visible(oid)) then
            execute format('create table %I (like candidates including all) partition by list (rcid)', night_table);
            execute format('alter table candidates attach partition %I for values in (%s)', night_table, wanted);
            execute format('create view %I as select * from %I', night_view, night_table);
        end if;
    end if;
    return night_table;
end $$;

create function ensure_partition(wanted integer, channel integer) returns text language plpgsql as $$
declare
    night_table text := prepare_night(wanted);
    leaf text := night_table || '_rc' || lpad(channel::text, 2, '0');
begin
    if to_regclass(leaf) is null then
        perform pg_advisory_xact_lock(7236002, wanted);
        if not exists (select from pg_class where relname = leaf and pg_table_is_visible(oid)) then
            execute format('create table %I (like candidates including all)', leaf);
            execute format('alter table %I attach partition %I for values in (%s)', night_table, leaf, channel);
        end if;
    end if;
    return leaf;
end $$;
