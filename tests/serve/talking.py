"""What somebody does on the Talk page."""


def ask(page, question: str):
    """Ask with the keyboard; the whole turn, explained."""
    before = page.locator(".turn:visible").count()
    page.get_by_label("Message").fill(question)
    page.keyboard.press("Enter")
    turn = page.locator(".turn:visible").nth(before)
    turn.locator('[data-slot="noted"]').wait_for()
    return turn


def text(turn) -> str:
    return turn.locator('[data-slot="text"]').inner_text()


def be(page, name: str) -> None:
    page.get_by_label("Somebody else's name").fill(name)
    page.get_by_role("button", name="Be them").click()


def teach(turn, right: str) -> None:
    """Correct an answer with the keyboard."""
    turn.get_by_role("button", name="Correct").press("Enter")
    turn.page.keyboard.type(right)
    turn.page.keyboard.press("Tab")
    turn.page.keyboard.press("Enter")
    turn.get_by_text("Noted.").wait_for()
