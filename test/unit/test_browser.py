"""The browser that the tests of pages use is real, and its watcher sees what goes wrong."""

from __future__ import annotations


def test_a_page_runs_and_its_faults_are_seen(watched_page, tmp_path):
    good, bad = tmp_path / "good.html", tmp_path / "bad.html"
    good.write_text("<canvas id=c></canvas><script>document.title = c.width * 2</script>")
    bad.write_text("<img src='http://192.0.2.1/x.png'><script>console.error('seen'); missing()</script>")
    watched = watched_page()
    watched.page.goto(good.as_uri())
    assert watched.page.title() == "600"
    watched.assert_clean()
    watched.page.goto(bad.as_uri(), wait_until="commit")
    watched.page.wait_for_function("document.images.length == 1")
    watched.page.evaluate("console.warn('last')")
    assert watched.outside == ["http://192.0.2.1/x.png"]
    assert any("seen" in text for text in watched.errors)
    assert any("missing is not defined" in text for text in watched.errors)
