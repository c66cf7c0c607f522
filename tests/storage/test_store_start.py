"""How many questions a store is asked before the first task."""

from __future__ import annotations

from configs.schema import CocuConfig, CorpusConfig
from corpora.fingerprint import fingerprint
from corpora.shards import list_shards
from spark_jobs.ingest import check
from storage.addresses import resolve
from storage.patterns import find

SHARDS = 60


def _fill(count=SHARDS):
    filesystem, _ = resolve("s3a://bucket/in")
    for number in range(count):
        with filesystem.open_output_stream(f"bucket/in/{number:05d}.tar") as stream:
            stream.write(b"x" * number)


def test_shards_are_listed_not_asked_for_one_by_one(store):
    _fill()
    for pattern in (f"{{00000..{SHARDS - 1:05d}}}.tar", "*.tar"):
        before = len(store.requests)
        corpus = CorpusConfig("web", "webdataset", f"s3a://bucket/in/{pattern}")
        shards = list_shards(corpus)
        assert len(fingerprint(shards, {})) == 16
        assert len(shards) == len({shard.stamp for shard in shards}) == SHARDS
        asked = [request.method for request in store.requests[before:]]
        assert len(asked) <= 6, asked  # a listing is a request for each thousand files
    assert [entry.size for entry in find("s3a://bucket/in/{00007,00003}.tar")] == [7, 3]


def test_the_check_before_spark_costs_no_more(store):
    _fill(40)
    corpus = CorpusConfig("web", "webdataset", "s3a://bucket/in/{00000..00039}.tar")
    before = len(store.requests)
    check(CocuConfig(corpora=[corpus]))
    assert len(store.requests) - before <= 6
