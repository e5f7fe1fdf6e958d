-- The registry: what came in, what was made of it, and what became of it. Forward-only: never edit, add a new numbered file.

create table exposures (                      -- one row an exposure, from the header of the first of its CCD files
    exposure    text primary key check (exposure ~ '^\d{14}$'),   -- filefracday
    night       date not null,
    nid         integer,
    expid       bigint,
    jd          double precision,             -- OBSJD, start of the exposure
    imgtype     text not null,                -- letter of the image type: o, b, d, f
    field       integer,
    filter      text,
    fid         smallint,
    exptime     real,                         -- s
    ra          double precision,             -- deg, telescope pointing
    dec         double precision,
    programid   smallint,
    programpi   text,
    header      jsonb not null default '{}',
    created     timestamptz not null default now()
);
create index on exposures (night);
create index on exposures (field, filter, jd);

create table raw_files (                      -- one row for every raw CCD file that ever arrived, accepted or not
    filename    text primary key,
    exposure    text,
    night       date not null,                -- of the incoming folder: a file with an unreadable name has one too
    ccdid       smallint,
    imgtype     text,
    state       text not null check (state in ('sealed', 'unusable', 'nothing-to-do', 'quarantined', 'failed')),
    reason      text,
    infobits    bigint not null default 0,
    path        text,                         -- relative to the root: the archive, or the quarantine
    size        bigint,
    sha256      text,
    attempts    integer not null default 1,
    arrived     timestamptz,
    created     timestamptz not null default now()
);
create index on raw_files (night);
create index on raw_files (exposure, ccdid);

create table products (
    id          bigint generated always as identity primary key,
    run         text not null,
    kind        text not null,
    key         text not null,
    provid      text not null,
    vbest       smallint not null default 1 check (vbest in (0, 1, 2)),   -- 0 superseded, 1 best, 2 locked best
    state       text not null check (state in ('sealed', 'unusable', 'nothing-to-do', 'quarantined', 'failed')),
    reason      text,
    infobits    bigint not null default 0,
    numbers     jsonb not null default '{}',
    night       date,
    exposure    text,
    field       integer,
    filter      text,
    fid         smallint,
    ccdid       smallint,
    qid         smallint,
    rcid        smallint,
    nid         integer,
    expid       bigint,
    rid         bigint,
    pid         bigint,
    jd          double precision,             -- OBSJD of the exposure
    ra          double precision,             -- deg, centre
    dec         double precision,
    hpx         bigint,                       -- HEALPix of the centre, order 16, NESTED
    ra1 double precision, dec1 double precision, ra2 double precision, dec2 double precision,   -- corners, in order around
    ra3 double precision, dec3 double precision, ra4 double precision, dec4 double precision,
    cells       integer[],                    -- HEALPix pixels the footprint touches, order 7, NESTED
    files       jsonb not null default '[]',  -- [{"path": relative to the root, "size": bytes, "sha256": hex}]
    version     text,                         -- of the algorithm
    config      jsonb not null default '{}',  -- critical settings it was made with
    attempts    integer not null default 1,
    is_bad      boolean not null default false,
    replaced_by text,                         -- provid of what to use instead
    good_after  date,                         -- valid for nights from this one on
    good_until  date,                         -- and up to this one
    created     timestamptz not null default now(),
    started     timestamptz,
    seconds     real,
    cpu_s       real,
    peak_mib    real,
    host        text,
    pilot       text,
    code_version text
);
create unique index products_current on products (run, kind, key) where vbest > 0;
create index products_provid on products (provid);
create index products_night on products (night, run) where vbest > 0;
create index products_exposure on products (exposure, ccdid, qid) where vbest > 0;
-- Only products_current starts with (run, kind): before statistics exist the planner must not take another index for the lookup by key.
create index products_cell on products (field, filter, rcid, kind) where vbest > 0;
create index products_place on products (hpx) where vbest > 0;
create index products_cells on products using gin (cells) where vbest > 0 and cells is not null;
create index products_pid on products (pid) where vbest > 0;

create table product_inputs (                 -- what a product was made of; a provid fixes its inputs
    provid       text not null,
    input_provid text not null,
    role         text not null default '',
    primary key (provid, input_provid, role)
);
create index on product_inputs (input_provid);

create table failures (                       -- every failed attempt, kept after the product succeeds
    id      bigint generated always as identity primary key,
    run     text not null,
    kind    text not null,
    key     text not null,
    "when"  timestamptz not null default now(),
    attempts integer not null,                -- which attempt this was
    message text not null,
    host    text
);
create index on failures (run, kind, key);

-- Every selection of inputs goes through this view. Bounds of validity need a night to compare with and are applied by the selection.
create view usable_products as
    select * from products where vbest > 0 and state = 'sealed' and not is_bad and replaced_by is null;
