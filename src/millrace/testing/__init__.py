"""The contract kit: laws that every implementation of a port keeps, to be run over one's own.

`engines.laws` and `stores.laws` are functions; each takes what makes the thing and raises AssertionError where a law is
broken. With pytest::

    from millrace.testing.engines import laws

    @pytest.mark.parametrize("law", laws, ids=lambda law: law.__name__)
    def test_my_engine_keeps(law):
        law(lambda opener=None: MyEngine(opener))

Real parts only: the toy analyses are small, not fake.
"""
