"""Scans to a blocks dataset."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from prefect import flow, get_run_logger

from flows.parameters.preprocess import PreprocessParameters
from pointcloud.dataset.preprocessing import PreprocessConfig
from pointcloud.formats.given_crs import GivenCrs
from pointcloud.formats.reader import find_scans
from pointcloud.storage.filesystem import resolve
from pointcloud.storage.inputs import Source
from pointcloud.storage.lock import held
from tasks.collection.plan import examine_scans
from tasks.collection.quarantine import check_quarantine
from tasks.prefect_ui.scan_states import show_markdown
from tasks.preprocessing.decoded_scans import scratch_folder
from tasks.preprocessing.preprocess import STAGE, key_for, preprocess_scans, write_manifest
from tasks.runtime.isolation import isolated


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessInputs:
    """What the parameters of one run mean: the scans, how they are cut, and the CRSs that are given for them."""

    sources: list[Source]
    config: PreprocessConfig
    given: GivenCrs

    @staticmethod
    def of(parameters: PreprocessParameters) -> PreprocessInputs:
        """Find the scans. Raises PointloomError for what can be checked before work starts."""
        config, given = parameters.config(), parameters.given_crs()
        resolve(parameters.out)
        sources = find_scans(parameters.scans)
        given.check(source.name for source in sources)
        return PreprocessInputs(sources=sources, config=config, given=given)


def check(parameters: PreprocessParameters) -> None:
    """Check what can be checked before work starts. Raises PointloomError."""
    parameters.hand_on(PreprocessInputs.of(parameters))


@flow(name="preprocess")
def preprocess(parameters: PreprocessParameters) -> str:
    """Cut scans into blocks and store them with a manifest; only what is new or changed is read.

    Returns the URI of the dataset, or of a dry run the plan.
    """
    logger, out = get_run_logger(), parameters.out
    inputs: PreprocessInputs = parameters.handed_on() or PreprocessInputs.of(parameters)
    config = inputs.config
    # One thread a process: the flow starts as many processes as it was given cores.
    with isolated(
        parameters.processes, parameters.memory_mb, parameters.time_limit_s, threads=1
    ) as processes:
        examine = partial(
            examine_scans,
            STAGE,
            out,
            inputs.sources,
            config.block_config,
            key_for(config),
            processes,
            parameters.processes,
            given=inputs.given,
            window=config.window,
            retry_quarantined=parameters.retry_quarantined,
            verify_content=parameters.verify_content,
        )
        if parameters.dry_run:
            plan = examine(dry_run=True)
            text = "\n".join([plan.plan.to_markdown(), *plan.remarks, *plan.unreached.values()])
            show_markdown(f"plan-{out}", text, f"What would be done in {out}")
            return text
        with held(out, parameters.wait_s) as lock, scratch_folder(out) as folder:
            plan = examine()
            logger.info("%s", plan.plan)
            for remark in (*plan.remarks, *plan.unreached.values()):
                logger.warning("%s", remark)
            records = preprocess_scans(plan, out, config, processes, parameters.processes, folder, lock)
            lock.check()
            write_manifest(records, out, config, plan.gone())
    check_quarantine(list(records.values()), parameters.max_quarantined)
    return out
