"""versions, rollback, freeze and doctor of a person's own adapter: by the person's name, and told to nobody else."""

from pathlib import Path

import pytest

from dayjob.cli.processes import check_learnable
from dayjob.endings import Conflict, PolicyKind, VersionStatus
from dayjob.journal.control import Control
from dayjob.journal.layers import open_layer
from dayjob.journal.versions import VersionManifest, publish_files
from dayjob.records import Policy, Version
from tests.cli.conftest import Command

KEY = ("default", "clerk")
BASELINE = "v0-baseline"


def add(root: Path, address: str, number: int) -> str:
    """A version that serves the layer from now on."""
    control = Control(root)
    about = VersionManifest(recipe="consolidate", network={}, from_seq=0, to_seq=0, seed=0, created_ms=0)
    files = {"adapter.safetensors": b"%d of %s" % (number, address.encode())}
    stored = publish_files(root, KEY[0], address, number=number, files=files, manifest=about)
    control.add_version(Version(
        tenant=KEY[0], policy=address, name=stored.version, number=number, parent=BASELINE, recipe="consolidate",
        digest=stored.digest, from_seq=0, to_seq=9, status=VersionStatus.CHAMPION, created_ms=number,
    ))  # fmt: skip
    pointers = control.pointers(KEY[0], address)
    control.move(KEY[0], address, change={"champion": stored.version, "previous": pointers.champion})
    return stored.version


@pytest.fixture
def office(shop: Path) -> tuple[Path, str, str, str]:
    """The directory, Ann's layer, her version and everybody's."""
    control = Control(shop)
    spec = {"kind": "language", "base": "tiny", "recipe": "consolidate"}
    policy = Policy(tenant=KEY[0], name=KEY[1], kind=PolicyKind.LANGUAGE, spec=spec, created_ms=0)
    baseline = Version(
        tenant=KEY[0], policy=KEY[1], name=BASELINE, number=0, parent=None, recipe="baseline", digest="0" * 64,
        from_seq=0, to_seq=0, status=VersionStatus.BASELINE, created_ms=0,
    )  # fmt: skip
    assert control.create_policy(policy, baseline)
    address = open_layer(control, *KEY, "ann")
    return shop, address, add(shop, address, 1), add(shop, KEY[1], 2)


def test_a_persons_versions_are_listed_and_rolled_back_by_name(dayjob: Command, office) -> None:
    root, address, own, tenants = office
    rows = dayjob("versions", "clerk", "--user", "ann", "--data", root, "--json").json
    assert [(row["version"], row["serves"]) for row in rows] == [(BASELINE, False), (own, True)]
    assert [row["version"] for row in dayjob("versions", "clerk", "--data", root, "--json").json] == [BASELINE, tenants]
    done = dayjob("rollback", "clerk", "--user", "ann", "--data", root)
    assert f"clerk, adapter of ann: {own} is withdrawn, the tenant's {tenants} answers this person" in done.out
    control = Control(root)
    assert control.pointers(KEY[0], address).champion == BASELINE
    assert control.version(KEY[0], address, own).status is VersionStatus.ROLLED_BACK
    assert control.pointers(*KEY).champion == tenants, "everybody's is another's"
    rows = dayjob("versions", "clerk", "--user", "ann", "--data", root, "--json").json
    assert [row["serves"] for row in rows] == [False, False]
    assert f"the tenant's {tenants} answers this person" in dayjob(
        "versions", "clerk", "--user", "ann", "--data", root
    ).out.replace("\n", "")


def test_a_persons_adapter_is_frozen_alone(dayjob: Command, office) -> None:
    root, address, _, tenants = office
    said = dayjob("freeze", "clerk", "--user", "ann", "--data", root).out
    assert said == "clerk, adapter of ann: frozen, the champion serves\n"
    said = dayjob("freeze", "clerk", "--user", "ann", "--serve", "baseline", "--data", root).out
    assert said == f"clerk, adapter of ann: frozen, the tenant's {tenants} answers this person\n"
    done = dayjob("freeze", "clerk", "--user", "ann", "--serve", "baseline", "--data", root, "--json")
    assert done.json == {"policy": "clerk", "user": "ann", "frozen": True, "serves": "baseline"}
    control = Control(root)
    assert (control.pointers(KEY[0], address).frozen, control.pointers(*KEY).frozen) == ("baseline", "")
    listed = dayjob("versions", "clerk", "--user", "ann", "--data", root)
    assert "(frozen)" in listed.out
    with pytest.raises(Conflict, match="adapter of ann is frozen: first run dayjob freeze clerk --user ann --off"):
        check_learnable(control, KEY[0], "clerk", recipe=None, user="ann")
    check_learnable(control, KEY[0], "clerk", recipe=None, user=None)  # everybody's goes on
    rows = dayjob("versions", "clerk", "--user", "ann", "--data", root, "--json").json
    assert not any(row["serves"] for row in rows), "what answers everybody answers her"
    dayjob("freeze", "clerk", "--data", root)
    still = dayjob("freeze", "clerk", "--user", "ann", "--off", "--data", root)
    assert "still frozen, by the policy's own freeze: dayjob freeze clerk --off" in still.out.replace("\n", "")
    dayjob("freeze", "clerk", "--off", "--data", root)
    assert "learns again" in dayjob("freeze", "clerk", "--user", "ann", "--off", "--data", root).out


@pytest.mark.parametrize("command", ["versions", "rollback", "freeze"])
def test_a_person_without_an_adapter_and_a_ranker_are_told(dayjob: Command, office, command: str) -> None:
    nobody = dayjob(command, "clerk", "--user", "bob", "--data", office[0])
    assert (nobody.status, "--user NAME" in nobody.err) == (2, True)
    ranker = dayjob(command, "shop", "--user", "ann", "--data", office[0])
    assert (ranker.status, "leave out --user" in ranker.err) == (2, True)


def test_the_doctor_reads_personal_versions_and_names_nobody_who_was_not_named(dayjob: Command, office) -> None:
    root, address, own = office[:3]
    found = {one["what"]: one for one in dayjob("doctor", "--data", root, "--json").json}
    assert found["weights"]["seen"].startswith("2 versions")
    assert not any("person's adapter" in what for what in found)
    told = {one["what"]: one for one in dayjob("doctor", "--user", "ann", "--data", root, "--json").json}
    assert told["this person's adapter of clerk"]["seen"] == f"{own} answers, 1 versions, 0 waiting"
    other = {one["what"]: one for one in dayjob("doctor", "--user", "bob", "--data", root, "--json").json}
    assert other["this person's adapter of clerk"]["seen"] == "none: the tenant's versions answer"
    for file in (root / "versions").rglob("adapter.safetensors"):
        if address.partition("/")[2] in str(file):
            file.write_bytes(b"flipped")
    done = dayjob("doctor", "--data", root, "--json")
    ill = [one for one in done.json if not one["well"] and own in one["what"]]
    assert [one["what"] for one in ill] == [
        f"version {own} of clerk (a person's layer, {address.partition('/')[2][:8]}), the champion"
    ]
    assert "dayjob rollback clerk --user NAME" in ill[0]["remedy"]
    assert "ann" not in str(done.json)
