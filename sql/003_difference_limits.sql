-- Local limits of difference images: what a place could have shown, where a history has no detection.

create table difference_limits (
    run    text not null,
    pid    bigint not null,
    rows   smallint not null,                 -- cells along y and x
    cols   smallint not null,
    limits bytea not null,                    -- 5-sigma limits, row by row: millimagnitudes, two bytes each, low byte first; 0 where masked
    primary key (run, pid)
);
alter table difference_limits alter column limits set storage external;   -- uncompressed, so that one cell is read without the others
