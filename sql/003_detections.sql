-- The candidates once more, by place: every column of a packet's history, in one table, so that all detections at a place are found by one
-- index probe, whatever number of nights and readout channels they lie in. Kept with `candidates` in every transaction that touches it.

create table detections (
    run text not null, hpx bigint not null,   -- HEALPix of ra, dec: order 16, NESTED
    jd double precision not null, fid integer not null, pid bigint not null, diffmaglim real, pdiffimfilename text, programpi text,
    programid integer, candid bigint not null, isdiffpos text, tblid bigint, nid integer not null, rcid integer not null,
    field integer not null, xpos real, ypos real, ra double precision not null, dec double precision not null, magpsf real,
    sigmapsf real, chipsf real, magap real, sigmagap real, distnr real, magnr real, sigmagnr real, chinr real, sharpnr real, sky real,
    magdiff real, fwhm real, classtar real, mindtoedge real, magfromlim real, seeratio real, aimage real, bimage real, aimagerat real,
    bimagerat real, elong real, nneg integer, nbad integer, rb real, ssdistnr real, ssmagnr real, ssnamenr text, sumrat real,
    magapbig real, sigmagapbig real, ranr double precision, decnr double precision, scorr double precision, magzpsci real,
    magzpsciunc real, magzpscirms real, clrcoeff real, clrcounc real, rbversion text
);
insert into detections select run, hpx, jd, fid, pid, diffmaglim, pdiffimfilename, programpi, programid, candid, isdiffpos, tblid, nid, rcid,
    field, xpos, ypos, ra, dec, magpsf, sigmapsf, chipsf, magap, sigmagap, distnr, magnr, sigmagnr, chinr, sharpnr, sky, magdiff, fwhm,
    classtar, mindtoedge, magfromlim, seeratio, aimage, bimage, aimagerat, bimagerat, elong, nneg, nbad, rb, ssdistnr, ssmagnr, ssnamenr,
    sumrat, magapbig, sigmagapbig, ranr, decnr, scorr, magzpsci, magzpsciunc, magzpscirms, clrcoeff, clrcounc, rbversion from candidates;
create index detections_place on detections (hpx);
create unique index detections_identity on detections (candid, run);

drop table event_sets;                        -- only told which partitions hold events near a place
