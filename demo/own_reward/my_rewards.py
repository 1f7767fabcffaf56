"""An example of a reward of one's own: how near the boxed number is to the sum of some numbers."""

import re


class Sum:
    """The domain `my_rewards.py:Sum`; an item is {"numbers": [3, 5, 8]}."""

    def check_item(self, item):
        """Raises ValueError where an item is not one of these."""
        numbers = item.get("numbers")
        if not isinstance(numbers, list) or not numbers or not all(isinstance(number, int) for number in numbers):
            raise ValueError(f"numbers is {numbers!r}; write a list of whole numbers")

    def load(self):
        """What `judge` needs; called once in a process."""

    def prepare(self, response, item):
        """The score where it is plain, else the text for `judge`. What stands in thoughts does not count."""
        boxes = re.findall(r"\\boxed\{(-?[0-9]{1,9})\}", response.rpartition("</think>")[2])
        return boxes[-1] if boxes else 0.0

    def judge(self, answer, item):
        """A number from 0 to 1: all for the sum, less the farther off."""
        wanted = sum(item["numbers"])
        return max(0.0, 1.0 - abs(int(answer) - wanted) / max(1, abs(wanted)))
