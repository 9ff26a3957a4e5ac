import pytest
from ray import serve as ray_serve

from pipelines.artifacts import RunDirectory
from rl.policy.bundle import load_bundle
from rl.policy.bundle_files import BundleError, BundleFolder
from serve.app import AppArguments, app
from serve.gate import NotPromotedError
from tests.unit.serve.small_shop import write_small_bundle


def test_app_when_the_bundle_is_promoted_builds(tmp_path):
    write_small_bundle(tmp_path)

    assert isinstance(app(AppArguments(bundle=str(tmp_path))), ray_serve.Application)


def test_app_when_the_gate_refused_wants_the_version(tmp_path):
    version = write_small_bundle(tmp_path, promote=False)

    with pytest.raises(NotPromotedError, match=f"purchase: worse than logging.*allow_unpromoted={version}$"):
        app(AppArguments(bundle=str(tmp_path), allow_unpromoted="another"))
    assert app(AppArguments(bundle=str(tmp_path), allow_unpromoted=version)) is not None


def test_app_when_there_is_no_bundle_says_what_to_run(tmp_path):
    with pytest.raises(BundleError, match="Run `slatewise evaluate` first"):
        app(AppArguments(bundle=str(tmp_path)))


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_bundle_folder_when_a_path_or_uri_reads_what_a_run_wrote(tmp_path, form):
    version = write_small_bundle(tmp_path)
    folder = BundleFolder(form.format(tmp_path))

    assert load_bundle(folder).version == version
    assert folder.files() == RunDirectory(str(tmp_path)).files()


def test_bundle_folder_when_the_scheme_is_unknown_says_so():
    with pytest.raises(BundleError, match="foo://x: expected a local path or a URI"):
        BundleFolder("foo://x")
