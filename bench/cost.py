"""What the archive costs a month, from the bytes of a row and list prices.

Prices are Amazon's list prices for S3 in us-east-1 (first 50 TB, USD), as known in November 2026; look them up again
before deciding anything. The reference's figures are those of the plan that this project was measured against.

Run: python -m bench.cost [--bytes-per-row B] [--rows-a-day N]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Final

from stream.archive.aging.policy import TIERS

ROWS_A_DAY: Final = 400_000_000
REGIONS, PARTITIONS, FLUSHES_A_DAY = 8, 32, 288
GB: Final = 1e9
DAYS_A_MONTH: Final = 30.4

STANDARD_GB_MONTH: Final = 0.023
COLD_GB_MONTH: Final = {"GLACIER_IR": 0.004, "DEEP_ARCHIVE": 0.00099}
PUT_STANDARD: Final = 0.005 / 1000
PUT_COLD: Final = {"GLACIER_IR": 0.02 / 1000, "DEEP_ARCHIVE": 0.05 / 1000}

REFERENCE_BYTES: Final = 500.0
REFERENCE_MONTH: Final = 3_500.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Dollars a month once two years are full; ``gb_a_day`` are decimal."""

    gb_a_day: float
    hot: float
    cold: float
    puts: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.hot + self.cold + self.puts


def cost(bytes_per_row: float, rows_a_day: int = ROWS_A_DAY) -> Cost:
    """Compute it: 90 days hot, then the cold class to the end of two years (see ``stream.archive.aging.policy``)."""
    hot, cold = TIERS["hot"], TIERS["cold"]
    storage_class = cold.storage_class or "GLACIER_IR"
    gb = bytes_per_row * rows_a_day / GB
    flushes = REGIONS * PARTITIONS * FLUSHES_A_DAY + PARTITIONS * FLUSHES_A_DAY  # objects, and one entry a flush
    puts = DAYS_A_MONTH * (flushes * PUT_STANDARD + REGIONS * PARTITIONS * (PUT_STANDARD + PUT_COLD[storage_class]))
    return Cost(
        gb,
        gb * hot.until_days * STANDARD_GB_MONTH,
        gb * (cold.until_days - hot.until_days) * COLD_GB_MONTH[storage_class],
        puts,
    )


def monthly(bytes_per_row: float, rows_a_day: int = ROWS_A_DAY) -> str:
    """Return the table, whyrec beside rows of the reference's size, and the reference's own figure."""
    lines = [f"{rows_a_day:,} impressions a day, USD a month   {'GB/day':>8}{'hot':>8}{'cold':>8}{'PUTs':>8}{'all':>8}"]
    for name, size in (("whyrec", bytes_per_row), ("rows of the reference's size", REFERENCE_BYTES)):
        found = cost(size, rows_a_day)
        label = f"{name}, {size:.1f} bytes"
        lines.append(
            f"{label:<43}{found.gb_a_day:>8,.1f}{found.hot:>8,.0f}{found.cold:>8,.0f}{found.puts:>8,.0f}"
            f"{found.total:>8,.0f}"
        )
    lines.append(f"{'the reference, as planned':<43}{'~200':>8}{'':>24}{f'~{REFERENCE_MONTH:,.0f}':>8}")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bytes-per-row", type=float, default=28.0, help="see bench.archive and bench.pull")
    parser.add_argument("--rows-a-day", type=int, default=ROWS_A_DAY)
    arguments = parser.parse_args()
    print(monthly(arguments.bytes_per_row, arguments.rows_a_day))


if __name__ == "__main__":
    main()
