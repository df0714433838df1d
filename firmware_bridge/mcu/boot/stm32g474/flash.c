#include "flash.h"

#include "reg.h"
#include "stm32g474.h"

#define KEY1 0x45670123u
#define KEY2 0xCDEF89ABu
#define LOOKS 2000000u /* an erase takes 25 ms (DS12288), 400 000 clocks of HSI16 */

static bool unlock(void)
{
    if ((reg_get(FLASH_CR) & FLASH_CR_LOCK) != 0u) {
        reg_put(FLASH_KEYR, KEY1);
        reg_put(FLASH_KEYR, KEY2);
    }
    reg_put(FLASH_SR, FLASH_SR_ERRORS); /* what stands there from before would stop us */
    return ((reg_get(FLASH_CR) & FLASH_CR_LOCK) == 0u) && reg_wait(FLASH_SR, FLASH_SR_BSY, 0u, LOOKS);
}

static bool finish(void)
{
    const bool done = reg_wait(FLASH_SR, FLASH_SR_BSY, 0u, LOOKS);
    const bool good = (reg_get(FLASH_SR) & FLASH_SR_ERRORS) == 0u;
    reg_put(FLASH_CR, FLASH_CR_LOCK);
    /* The data cache does not notice: what is read back would be what stood there before (RM0440 5.3.3). */
    reg_clear(FLASH_ACR, FLASH_ACR_DCEN);
    reg_set(FLASH_ACR, FLASH_ACR_DCRST);
    reg_clear(FLASH_ACR, FLASH_ACR_DCRST);
    reg_set(FLASH_ACR, FLASH_ACR_DCEN);
    return done && good;
}

bool flash_erase(uint32_t page)
{
    if (!unlock()) {
        return false;
    }
    reg_put(FLASH_CR, FLASH_CR_PER | (page << FLASH_CR_PNB_SHIFT));
    reg_set(FLASH_CR, FLASH_CR_STRT);
    return finish();
}

bool flash_write(uint32_t address, uint32_t low, uint32_t high)
{
    if (!unlock()) {
        return false;
    }
    reg_put(FLASH_CR, FLASH_CR_PG);
    reg_put(address, low);
    reg_put(address + 4u, high);
    return finish();
}

bool flash_forgive(void)
{
    const bool was = (reg_get(FLASH_ECCR) & FLASH_ECCR_ECCD) != 0u;
    if (was) {
        reg_set(FLASH_ECCR, FLASH_ECCR_ECCD);
    }
    return was;
}
