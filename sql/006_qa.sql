-- Quality numbers in long form: one row for each number of each current product, whatever became of it. Forward-only.

create view qa_metrics as
    select p.run, p.kind, p.key, p.provid, p.state, p.infobits, p.night, p.exposure, p.field, p.filter, p.ccdid, p.qid, p.rcid, p.jd,
           number.key as metric, (number.value #>> '{}')::double precision as value
    from products p cross join lateral jsonb_each(p.numbers) as number
    where p.vbest > 0 and jsonb_typeof(number.value) = 'number'
    union all
    select p.run, p.kind, p.key, p.provid, p.state, p.infobits, p.night, p.exposure, p.field, p.filter, p.ccdid, p.qid, p.rcid, p.jd,
           cost.metric, cost.value
    from products p cross join lateral (values ('seconds', p.seconds::double precision), ('cpu_s', p.cpu_s::double precision),
                                               ('peak_mib', p.peak_mib::double precision)) as cost (metric, value)
    where p.vbest > 0 and cost.value is not null;
